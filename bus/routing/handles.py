"""Requests on their way through the broker, by handle: who asked, who must answer, and until when.

A handle is for one worker and one answer. Handles of two starts of the broker are far apart, so that a
late answer to the last one meets no request of this.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

from bus.routing.peers import Session

_STALE = 1024  # deadlines of answered requests that may stay in the heap


@dataclass(slots=True, eq=False)
class Pending:
    requester: Session
    ref: int  # the requester's id for it
    worker: Session


class Handles:
    """The requests that wait for a reply. `now` and deadlines are monotonic seconds."""

    def __init__(self, epoch: int) -> None:
        self._pending: dict[int, Pending] = {}
        self._deadlines: list[tuple[float, int]] = []  # heap of (deadline, handle)
        self._handles = itertools.count((epoch & 0x7FFF_FFFF_FFFF) << 15 | 1)

    def open(self, pending: Pending, deadline: float) -> int:
        """Remember a request; the handle under which its worker answers."""
        handle = next(self._handles)
        self._pending[handle] = pending
        pending.requester.inflight += 1
        heapq.heappush(self._deadlines, (deadline, handle))
        if len(self._deadlines) > 2 * len(self._pending) + _STALE:
            # Answered requests leave theirs behind, and a deadline may be a day away.
            self._deadlines = [d for d in self._deadlines if d[1] in self._pending]
            heapq.heapify(self._deadlines)
        return handle

    def take(self, handle: int, worker: Session) -> Pending | None:
        """The request that `worker` answers, which is thereby over; None if it is not its to answer."""
        pending = self._pending.get(handle)
        if pending is None or pending.worker is not worker:
            return None
        return self._end(handle)

    def overdue(self, now: float) -> list[Pending]:
        """Requests whose deadline has passed, which are thereby over."""
        ended = []
        while self._deadlines and self._deadlines[0][0] <= now:
            handle = heapq.heappop(self._deadlines)[1]
            if handle in self._pending:
                ended.append(self._end(handle))
        return ended

    def leave(self, session: Session) -> list[Pending]:
        """A session has ended: forget what it asked, return what it will never answer."""
        own = [h for h, p in self._pending.items() if session in (p.requester, p.worker)]
        ended = [self._end(handle) for handle in own]
        return [pending for pending in ended if pending.requester is not session]

    @property
    def next_deadline(self) -> float | None:
        return self._deadlines[0][0] if self._deadlines else None

    def _end(self, handle: int) -> Pending:
        pending = self._pending.pop(handle)
        pending.requester.inflight -= 1
        return pending
