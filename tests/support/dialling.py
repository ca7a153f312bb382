"""Clients by hand that talk to a real broker."""

from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from tests.support.broker import Broker
from tests.support.raw import OK, SUBSCRIBE, Raw

SMALL_BUFFERS = {zmq.RCVHWM: 1, zmq.RCVBUF: 16 << 10}


@contextmanager
def dialled(broker: Broker, name: str, options: dict[int, int] | None = None) -> Iterator[Raw]:
    with Raw(broker.address, broker.keys[name], options=options) as raw:
        yield raw


def subscribed(raw: Raw, pattern: str, **fields: object) -> Raw:
    raw.send(SUBSCRIBE, {"id": 1, "sid": 1, "s": pattern, **fields})
    raw.hear_only(OK)
    return raw
