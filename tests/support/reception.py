"""A broker that newcomers ask to be let in, and what its admin and they say."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest

from bus import KeyPair, NotAuthorised, join, keystore, signals
from bus.caller import Caller
from bus.identity import fingerprint
from tests.support.attack import bystander
from tests.support.broker import Broker
from tests.support.raw import Raw

ENROL, ENROLLED = 0x04, 0x86


@contextmanager
def reception() -> Iterator[Broker]:
    """Run a broker; `alice`, who is in session, must not notice anything."""
    with bystander(boss="admin", alice="app") as (broker, _):
        yield broker


def asks(broker: Broker, subject: str, value: object = None, name: str = "boss") -> Any:
    with Caller(broker.address, broker.keys[name]) as caller:
        body = b"" if value is None else signals.pack(value)
        return msgpack.unpackb(caller.request(subject, body))


def token(broker: Broker, *roles: str, name: str = "", seconds: float = 60) -> str:
    query = signals.TokenQuery(list(roles or ("app",)), name, seconds)
    return str(asks(broker, signals.ENROL_TOKEN, query)["token"])


def opens(broker: Broker, seconds: float = 60) -> None:
    assert asks(broker, signals.ENROL_OPEN, signals.Opening(seconds)) == {}


def waiting(broker: Broker) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asks(broker, signals.ENROL_LIST)["pending"]
    return found


def newcomer(broker: Broker, name: str = "lamp") -> KeyPair:
    return keystore.create(broker.folder / f"{name}.key")


def state(broker: Broker, pair: KeyPair, secret: str = "", name: str = "lamp") -> str:
    answer = join.enrol(broker.address, pair, name, secret)
    assert answer.fingerprint == fingerprint(pair.public)
    return answer.state


def refused_by_handshake(broker: Broker, pair: KeyPair) -> bool:
    with pytest.raises(NotAuthorised, match="has nobody enrol now"):
        join.enrol(broker.address, pair)
    return True


def roles_of(broker: Broker, pair: KeyPair) -> list[str]:
    with Raw(broker.address, pair) as raw:
        roles: list[str] = raw.hello()["roles"]
        return roles
