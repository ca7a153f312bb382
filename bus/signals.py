"""Bodies of the signals and system requests that every part of the product understands.

All are MessagePack maps; unknown keys are ignored, so that a newer peer may say more.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from bus.errors import Refused

# Requests to a participant, addressed to its key.
PING = "signal.ping"
USAGE = "signal.usage"
SHUTDOWN = "signal.shutdown"

# Requests to the broker.
SESSIONS = "$SYS.sessions"
INFO = "$SYS.info"
ACCESS_PUT = "$SYS.access.put"
ACCESS_REMOVE = "$SYS.access.remove"
ACCESS_LIST = "$SYS.access.list"

# Published by the broker, with the participant's key in hex as the last token.
PRESENCE = "$SYS.presence"


class Pinged(Struct, frozen=True):
    t: float  # the participant's clock, Unix seconds


class Usage(Struct, frozen=True):
    """What a participant says of itself; seconds, bytes, counts."""

    cpu_seconds: float
    rss: int
    threads: int
    fds: int
    bus_in: int
    bus_out: int


class ShuttingDown(Struct, frozen=True):
    pid: int


class SessionsQuery(Struct, frozen=True):
    key: str | None = None


class SessionInfo(Struct, frozen=True):
    """One session as the broker counts it; bytes are of heads and bodies."""

    key: str
    name: str
    since: float  # Unix seconds
    bytes_in: int  # from the participant to the broker
    bytes_out: int
    messages_in: int
    messages_out: int
    subscriptions: int


class Sessions(Struct, frozen=True):
    sessions: list[SessionInfo]


class BrokerInfo(Struct, frozen=True):
    endpoint: str
    key: str
    epoch: int
    version: str
    pid: int
    sessions: int


class AccessEntry(Struct, frozen=True):
    """One allowed key; `name` is for people, `roles` decide."""

    key: str
    name: str
    roles: list[str]


class AccessKey(Struct, frozen=True):
    key: str


class AccessEntries(Struct, frozen=True):
    keys: list[AccessEntry]


class Presence(Struct, frozen=True):
    key: str
    name: str
    state: str  # "online" or "offline"
    reason: str = ""


class Done(Struct, frozen=True):
    """The empty answer."""


T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


def pack(value: object) -> bytes:
    return _encoder.encode(value)


def unpack(body: bytes, kind: type[T]) -> T:
    """`body` as a `kind`; `Refused` 400 when it is not one, which a handler may let out."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Refused(400, "bad_body", f"{kind.__name__}: {error}") from None
