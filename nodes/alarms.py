"""When each session wants to be called, of thousands: nobody is looked at whose time has not come. Pure."""

from __future__ import annotations

import itertools
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


class Sleeper(Protocol):
    """`alarm` is the earliest time at which it is called anyhow."""

    alarm: float


S = TypeVar("S", bound=Sleeper)


class Alarms(Generic[S]):
    """`wake` is told the time of the next call, when that is earlier than it was told before.

    An alarm that is put off rings all the same, once, and is set again by who is called: so there are
    few more of them than sleepers.
    """

    def __init__(self, wake: Callable[[float], None]) -> None:
        self._wake = wake
        self._heap: list[tuple[float, int, S]] = []
        self._order = itertools.count()
        self._wake_at = inf
        self._ringing = False

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, sleeper: S, when: float) -> None:
        """Call it at that time, or earlier."""
        if when < sleeper.alarm:
            sleeper.alarm = when
            heappush(self._heap, (when, next(self._order), sleeper))
            if when < self._wake_at and not self._ringing:
                self._wake_at = when
                self._wake(when)

    def ring(self, now: float, call: Callable[[S], None]) -> None:
        """Call all whose time has come; what they set meanwhile comes next time."""
        due: list[S] = []
        while self._heap and self._heap[0][0] <= now:
            when, _, sleeper = heappop(self._heap)
            if sleeper.alarm == when:  # else it was set to an earlier time since
                sleeper.alarm = inf
                due.append(sleeper)
        self._ringing = True
        try:
            for sleeper in due:
                call(sleeper)
        finally:
            self._ringing = False
            self._wake_at = self._heap[0][0] if self._heap else inf
            if self._heap:
                self._wake(self._wake_at)
