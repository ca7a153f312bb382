"""What is to be done at a time. Pure: the time is passed in."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Alarms:
    """Acts by the monotonic second at which they are due; there is no taking back."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, act: Callable[[float], None]) -> None:
        """Call `act` with the time, once, at `when` or soon after."""
        heapq.heappush(self._heap, (when, next(self._order), act))

    @property
    def next(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def ring(self, now: float) -> None:
        """Do what is due by `now`."""
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2](now)


class Alarm:
    """One act that wants to happen at the earliest of the times it was set to."""

    def __init__(self, alarms: Alarms, act: Callable[[float], None]) -> None:
        self._alarms = alarms
        self._act = act
        self._when = float("inf")

    def set(self, when: float | None) -> None:
        """Ring at `when`, unless it rings before; None: no wish."""
        if when is not None and when < self._when:
            self._when = when
            self._alarms.at(when, self._ring)

    def _ring(self, now: float) -> None:
        if now >= self._when:  # else it is the rest of a later time, which rang already
            self._when = float("inf")
            self._act(now)
