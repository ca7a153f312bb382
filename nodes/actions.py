"""What a session or the tables of a node want done: the engine does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nodes import wire

if TYPE_CHECKING:
    from nodes.flows import Stream
    from nodes.ways import Way
    from nodes.wire import Code


@dataclass(slots=True, frozen=True)
class Emit:
    """Send a frame on a way."""

    way: Way
    kind: int
    payload: bytes | bytearray
    lane: int = 0
    epoch: int = 0
    counter: int = 0

    def head(self, label: int, ttl: int) -> bytes:
        return wire.head(self.kind, label, self.counter, lane=self.lane, epoch=self.epoch, ttl=ttl)


@dataclass(slots=True, frozen=True)
class Ended:
    """Cut these streams: the session that held them is over, and another may begin."""

    streams: list[Stream]
    code: Code


@dataclass(slots=True, frozen=True)
class Up:
    """There are keys: what waited may go."""


@dataclass(slots=True, frozen=True)
class Switched:
    """Another way is used from now on, or none; what was not acknowledged waits to be sent again."""


@dataclass(slots=True, frozen=True)
class Again:
    """Go on sending: there is room again, or frames are to be sent again."""


@dataclass(slots=True, frozen=True)
class Wanted:
    """A route to the peer is needed: there is none, or the one there was is not good."""

    reason: str


@dataclass(slots=True, frozen=True)
class Dead:
    """Take the route of a way down: it came to nothing."""

    way: Way
    reason: str


Action = Emit | Ended | Up | Switched | Again | Wanted | Dead
