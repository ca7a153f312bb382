"""The asyncio side of what a client waits for: a future for each command, a reader for many replies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bus.errors import BusError
from bus.link import Link
from bus.session import ClientSession
from bus.stream import Replies
from bus.waiting import DEADLINE_GRACE, Part, Settled, SettledTogether


class Calls:
    """Commands under way. While `barred` is set nothing is begun: it says why."""

    def __init__(self, session: ClientSession, link: Link) -> None:
        self.session = session
        self.barred: BusError | None = None
        self.write = link.write
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._results: dict[int, asyncio.Future[Settled]] = {}
        self._replies: dict[int, Replies] = {}

    def check(self) -> None:
        """Raise why nothing may be begun."""
        if self.barred is not None:
            raise type(self.barred)(str(self.barred))

    async def room(self) -> None:
        """Wait while the send buffer is full."""
        while self.session.queue.full:
            self.check()
            self._link.room.clear()
            await self._link.room.wait()

    async def result(self, ref: int, timeout: float | None = None) -> Settled:
        """Wait for the end of the command `ref`; raises what it ended with. `timeout` as it was given."""
        if self.barred is not None:
            self.session.forget(ref)
            self.check()
        if timeout is not None:
            self.arm(timeout)
        result: asyncio.Future[Settled] = self._loop.create_future()
        self._results[ref] = result
        if len(self._results) == 1:
            self.write()
        else:  # others are on their way as well
            self._link.write_soon()
        try:
            return await result
        finally:
            self._results.pop(ref, None)
            self.session.forget(ref)

    @contextmanager
    def replies(self, ref: int, timeout: float) -> Iterator[Replies]:
        """The replies to the request `ref`; leaving the block before the last cancels the rest."""
        if self.barred is not None:
            self.session.forget(ref)
            self.check()
        self.arm(timeout)
        replies = self._replies[ref] = Replies()
        self.write()
        try:
            yield replies
        finally:
            del self._replies[ref]
            self.session.cancel(ref)
            self.write()

    def arm(self, seconds: float) -> None:
        """Have the session's timer go off in time for a deadline in so many seconds."""
        self._link.arm_by(self._loop.time() + seconds + DEADLINE_GRACE)

    def settled(self, settled: Settled, _body: bytes = b"") -> None:
        result = self._results.get(settled.id)
        if result is not None:
            if result.done():
                return
            if settled.error is None:
                result.set_result(settled)
            else:
                result.set_exception(settled.error)
        elif settled.id in self._replies:
            self._replies[settled.id].end(settled)

    def settled_together(self, settled: SettledTogether, _body: bytes = b"") -> None:
        for each in settled.each:
            self.settled(each)

    def part(self, part: Part, _body: bytes = b"") -> None:
        if part.id in self._replies:
            self._replies[part.id].put(part)

    def fail_all(self, error: BusError) -> None:
        for ref in [*self._results, *self._replies]:
            self.settled(Settled(ref, error=error))

    @property
    def now(self) -> float:
        return time.monotonic()
