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
    """One act that wants to happen at the earliest of the times it was set to.

    It may happen oftener: a time that was set and is not needed any more is not taken back.
    """

    def __init__(self, alarms: Alarms, act: Callable[[float], None]) -> None:
        self._alarms = alarms
        self._act = act
        self._times: list[float] = []  # set, the earliest last

    def set(self, when: float | None) -> None:
        """Happen at `when`, or earlier and be set again; None: no wish."""
        if when is not None and (not self._times or when < self._times[-1]):
            self._times.append(when)
            self._alarms.at(when, self._ring)

    def _ring(self, now: float) -> None:
        self._times.pop()
        self._act(now)
