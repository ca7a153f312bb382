"""How the real broker stops: what is under way ends first, and nothing waits for ever."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from tests.support.broker import PATIENCE, Broker, running_broker
from tests.support.dialling import SMALL_BUFFERS, dialled, subscribed
from tests.support.raw import (
    DELIVERY,
    ERROR,
    GOODBYE,
    HELLO,
    OK,
    PUBLISH,
    REPLY,
    REPLY_DELIVERY,
    REQUEST,
    REQUEST_DELIVERY,
    SERVE,
    Raw,
)

NOTICE = 0x9A


@contextmanager
def working(broker: Broker) -> Iterator[tuple[Raw, Raw, int]]:
    """Give a requester, a worker and the handle of a request that is under way."""
    with dialled(broker, "alice") as alice, dialled(broker, "worker") as worker:
        alice.hello(caps=["notices"])
        worker.hello()
        worker.send(SERVE, {"id": 1, "s": "app.job"})
        worker.hear_only(OK)
        alice.send(REQUEST, {"id": 9, "s": "app.job", "dl": 60_000})
        yield alice, worker, worker.hear_only(REQUEST_DELIVERY)["r"]


def test_a_broker_that_is_told_to_stop_lets_requests_end_first() -> None:
    with (
        running_broker(alice="app", worker="app") as broker,
        working(broker) as (alice, worker, handle),
    ):
        broker.signal(signal.SIGTERM)
        assert alice.hear_only(NOTICE) == {"drain": 2000, "reason": "the broker is stopping"}
        alice.send(REQUEST, {"id": 10, "s": "app.job", "dl": 60_000})
        assert alice.hear_only(ERROR)["err"] == "draining"
        with dialled(broker, "alice") as late:
            late.send(HELLO)
            assert late.hear_only(ERROR)["num"] == 503
        worker.send(REPLY, {"r": handle}, b"done")
        code, fields, body = alice.hear()
        assert (code, fields["ref"], body) == (REPLY_DELIVERY, 9, b"done")
        for raw in (alice, worker):
            assert raw.hear_only(GOODBYE)["num"] == 503
        assert broker.stop() == 0


def test_a_drain_does_not_wait_for_ever() -> None:
    with (
        running_broker(alice="app", worker="app") as broker,
        working(broker) as (alice, _worker, _),
    ):
        start = time.monotonic()
        broker.signal(signal.SIGTERM)
        alice.hear_only(NOTICE)
        assert alice.hear_only(GOODBYE)["num"] == 503
        assert 1.9 < time.monotonic() - start < 10
        assert broker.stop() == 0


IN_LIBZMQ, IN_THE_OUTBOX = (24, 1 << 20), (3000, 8 << 10)  # where most of a flood waits
floods = pytest.mark.parametrize("flood", [IN_LIBZMQ, IN_THE_OUTBOX], ids=["libzmq", "outbox"])


@contextmanager
def answered_behind(flood: tuple[int, int], broker: Broker) -> Iterator[Raw]:
    """Give a requester that does not read, and whose reply waits at the broker behind 24 MiB."""
    count, size = flood
    # A libzmq that reconnects keeps what is unread when the connection ends.
    options = {**SMALL_BUFFERS, zmq.RECONNECT_IVL: 60_000}
    with dialled(broker, "slow", options) as slow, dialled(broker, "worker") as worker:
        slow.hello()
        worker.hello()
        subscribed(slow, "app.flood")
        worker.send(SERVE, {"id": 1, "s": "app.job"})
        worker.hear_only(OK)
        for _ in range(count):
            worker.send(PUBLISH, {"s": "app.flood"}, bytes(size))
        slow.send(REQUEST, {"id": 9, "s": "app.job", "dl": 60_000})
        worker.send(REPLY, {"r": worker.hear_only(REQUEST_DELIVERY)["r"]}, b"done")
        assert worker.alive()  # the broker has the reply
        yield slow


@floods
def test_a_reply_behind_much_else_reaches_a_requester_that_reads_late(
    flood: tuple[int, int],
) -> None:
    with (
        running_broker(slow="app", worker="app") as broker,
        answered_behind(flood, broker) as slow,
    ):
        broker.signal(signal.SIGTERM)
        time.sleep(0.2)
        for _ in range(flood[0]):
            slow.hear_only(DELIVERY)
        code, fields, body = slow.hear()
        assert (code, fields["ref"], body) == (REPLY_DELIVERY, 9, b"done")
        assert slow.hear_only(GOODBYE)["num"] == 503
        assert broker.process is not None
        assert broker.process.wait(PATIENCE) == 0


@floods
def test_a_requester_that_never_reads_holds_up_the_end_no_longer_than_the_drain(
    flood: tuple[int, int],
) -> None:
    with running_broker(slow="app", worker="app") as broker, answered_behind(flood, broker):
        start = time.monotonic()
        assert broker.stop() == 0
        assert 1.9 < time.monotonic() - start < 10


def test_a_broker_with_nothing_under_way_stops_at_once() -> None:
    with running_broker(alice="app") as broker, dialled(broker, "alice") as alice:
        alice.hello()
        start = time.monotonic()
        broker.signal(signal.SIGTERM)
        assert alice.hear_only(GOODBYE)["num"] == 503
        assert time.monotonic() - start < 1.5
        assert broker.stop() == 0
