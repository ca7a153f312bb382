"""PING and PONG of a session: whether who holds the key is there, and how long an answer takes.

Sealed as everything else in the session, so nobody on the way can answer for it. Pure.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from nodes.acks import Told

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ASKED: Final = 64  # pings without an answer, and as many that wait for keys; the oldest goes
_PING: Final = struct.Struct(">BQ")  # what it is, number


class _Asked(NamedTuple):
    at: float
    done: Callable[[float], None]


class Pings:
    """Of one session; `tell` sends a record that may be lost."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._waiting: list[Callable[[float], None]] = []

    def ask(self, done: Callable[[float], None]) -> None:
        """Ask at the next `flush`; `done` hears the round trip in seconds, if it comes."""
        self._waiting.append(done)
        del self._waiting[:-MAX_ASKED]

    def flush(self, now: float) -> None:
        """Send what waits; the session is up."""
        for done in self._waiting:
            number = next(self._numbers)
            self._asked[number] = _Asked(now, done)
            self._tell(_PING.pack(Told.PING, number))
        self._waiting.clear()
        while len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]

    def heard(self, record: memoryview, now: float) -> None:
        """A record came: a PING is answered, a PONG is told; all others say nothing."""
        if len(record) < _PING.size:
            return
        kind, number = _PING.unpack_from(record)
        if kind == Told.PING:
            self._tell(_PING.pack(Told.PONG, number))
        elif kind == Told.PONG:
            asked = self._asked.pop(number, None)
            if asked is not None:
                asked.done(max(0.0, now - asked.at))
