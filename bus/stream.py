"""More than one reply to a request: what has come of them, and how much more may."""

from __future__ import annotations

import asyncio
from collections import deque

from bus.errors import Overflow
from bus.waiting import Part, Settled

MAX_KEPT_BYTES = 64 << 20  # of replies that wait for their reader
_PART_COST = 400  # bytes that keeping one takes beside its body


class Replies:
    """The replies to one request, for one reader, until the last."""

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        self._bytes = 0
        self._end: Settled | None = None
        self._arrival: asyncio.Future[None] | None = None

    async def next(self) -> Part | None:
        """The next reply; None after the last. Raises what the request ended with."""
        while not self._parts:
            if self._end is not None:
                if self._end.error is not None:
                    raise self._end.error
                return None
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        part = self._parts.popleft()
        self._bytes -= _PART_COST + len(part.body)
        return part

    def put(self, part: Part) -> None:
        if self._end is not None:
            return
        self._parts.append(part)
        self._bytes += _PART_COST + len(part.body)
        if self._bytes > MAX_KEPT_BYTES:
            problem = f"more than {MAX_KEPT_BYTES} bytes of replies wait for their reader"
            self.end(Settled(part.id, error=Overflow(problem)))
        self._wake()

    def end(self, settled: Settled) -> None:
        """No more come; a body that came with the end is the last of them."""
        if self._end is not None:
            return
        if settled.body:
            self._parts.append(Part(settled.id, "", settled.body))
            self._bytes += _PART_COST + len(settled.body)
        self._end = settled
        self._wake()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


class Window:
    """Chunks that may be sent: `take` one, waiting while there is none."""

    def __init__(self, chunks: int) -> None:
        self._left = chunks
        self._more = asyncio.Event()

    async def take(self) -> None:
        while self._left <= 0:
            self._more.clear()
            await self._more.wait()
        self._left -= 1

    def grant(self, chunks: int) -> None:
        self._left += chunks
        self._more.set()
