"""PROBE and ECHO: who is so many links away on a route, and how long the way there and back takes.

Nobody proves an ECHO but the neighbours on the way: it is good to look by, not to decide who is who.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from nodes.wire import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodes.ways import Way

PATIENCE: Final = 10.0  # s
MAX_ASKED: Final = 4096  # probes without an answer
_NUMBER: Final = struct.Struct(">Q")
_ECHO: Final = struct.Struct(f">Q{KEY_BYTES}sI")  # number, key of who answers, µs that it was held


class Echo(NamedTuple):
    key: bytes  # raw, of the node that says it answered
    round_trip: float  # s


class _Asked(NamedTuple):
    way: Way
    at: float
    done: Callable[[Echo], None]


class Probing:
    """The probes of one node. `own` is its raw key."""

    def __init__(self, own: bytes) -> None:
        self._own = own
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}

    def ask(self, way: Way, now: float, done: Callable[[Echo], None]) -> bytes:
        """Payload of a PROBE; `done` is called if it is answered on the same way."""
        number = next(self._numbers)
        if len(self._asked) < MAX_ASKED:
            self._asked[number] = _Asked(way, now, done)
        return _NUMBER.pack(number)

    def echo(self, probe: memoryview) -> bytes:
        """Payload of the ECHO to a PROBE."""
        number = _NUMBER.unpack_from(probe)[0] if len(probe) >= _NUMBER.size else 0
        return _ECHO.pack(number, self._own, 0)

    def answered(self, payload: memoryview, way: Way, now: float) -> None:
        """An ECHO came."""
        if len(payload) < _ECHO.size:
            return
        number, key, held = _ECHO.unpack_from(payload)
        asked = self._asked.get(number)
        if asked is not None and asked.way is way:
            del self._asked[number]
            asked.done(Echo(key, max(0.0, now - asked.at - held / 1e6)))

    def tick(self, now: float) -> None:
        """Forget what nobody will answer any more."""
        for number, asked in list(self._asked.items()):
            if now - asked.at <= PATIENCE:
                break
            del self._asked[number]


def noting(way: Way) -> Callable[[Echo], None]:
    """What an answered probe says about a way that stands by."""

    def answered(echo: Echo) -> None:
        way.unanswered = 0
        way.round_trip = echo.round_trip

    return answered
