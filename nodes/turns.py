"""Who of a session's streams sends next: those that send little first, else who has waited longest.

Everybody sends one frame in a turn and goes to the end of the line, so all get the same number of bytes
whatever lane they are in; who waits for a lane that is full holds nobody up in another. Pure.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Protocol

from nodes.acks import LANES

if TYPE_CHECKING:
    from collections.abc import Sequence


class Waiting(Protocol):
    """Somebody who wants to send and could not."""

    def unpark(self) -> None:
        """Try again."""
        ...


_Line = deque[tuple[int, Waiting]]


class Turns:
    """Two lines for each lane: for what is urgent, and for the rest."""

    def __init__(self) -> None:
        self.count = 0  # who waits
        self._tickets = itertools.count()
        self._urgent: tuple[_Line, ...] = tuple(deque() for _ in range(LANES))
        self._bulk: tuple[_Line, ...] = tuple(deque() for _ in range(LANES))

    def add(self, waiting: Waiting, lane: int, *, urgent: bool) -> None:
        lines = self._urgent if urgent else self._bulk
        lines[lane].append((next(self._tickets), waiting))
        self.count += 1

    def wait(self, lane: int) -> bool:
        """Whether anybody waits for this lane."""
        return bool(self._bulk[lane] or self._urgent[lane])

    def next(self, lanes: Sequence[int], *, only_urgent: bool = False) -> Waiting | None:
        """Who is next of those that wait for one of `lanes`; it leaves the line."""
        for lines in (self._urgent,) if only_urgent else (self._urgent, self._bulk):
            first: _Line | None = None
            for lane in lanes:
                line = lines[lane]
                if line and (first is None or line[0][0] < first[0][0]):
                    first = line
            if first is not None:
                self.count -= 1
                return first.popleft()[1]
        return None
