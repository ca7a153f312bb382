"""What a subscription has for its reader: batches as they arrived, read one message at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from operator import length_hint

import msgspec

MAX_KEPT_BYTES = 64 << 20  # of messages that a subscription holds for a slow reader
_BATCH_COST, _BODY_COST = 400, 48  # bytes that keeping them takes beside what is in them


class Message(msgspec.Struct, frozen=True, gc=False):
    """What a subscription yields and a signal handler gets; `sender` is the proved key, Z85."""

    subject: str
    sender: str
    body: bytes


class Subscription:
    """Messages of one pattern, in order: `async for message in subscription`.

    A reader that falls `MAX_KEPT_BYTES` behind loses the oldest; `lost` counts these and what the broker
    had to drop. Iterating again goes on where the last iteration stopped.
    """

    def __init__(self, pattern: str, drop: Callable[[], None]) -> None:
        self.pattern = pattern
        self.lost = 0
        self._drop = drop  # tells the broker that nobody reads any more
        self._batches: deque[tuple[str, str, list[bytes], int]] = deque()  # the last is their size
        self._bytes = 0  # of all batches
        self._subject = self._sender = ""  # of the batch being read
        self._bodies: Iterator[bytes] = iter(())
        self._arrival: asyncio.Future[None] | None = None
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[Message]:
        # A generator costs a third of a coroutine per message; what it reads from outlives it.
        while await self._next_batch():
            subject, sender = self._subject, self._sender
            for body in self._bodies:
                yield Message(subject, sender, body)

    async def __anext__(self) -> Message:
        while True:
            for body in self._bodies:
                return Message(self._subject, self._sender, body)
            if not await self._next_batch():
                raise StopAsyncIteration

    async def _next_batch(self) -> bool:
        """Make `_bodies` the next batch, unless it has some left; False at the end."""
        if length_hint(self._bodies):
            return True
        while not self._batches:
            if self._closed:
                return False
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        self._subject, self._sender, bodies, size = self._batches.popleft()
        self._bodies = iter(bodies)
        self._bytes -= size
        return True

    async def close(self) -> None:
        """No more messages after those that are here already."""
        self._drop()
        self.end()

    def put(self, subject: str, sender: str, bodies: list[bytes], size: int) -> None:
        size += _BATCH_COST + _BODY_COST * len(bodies)
        self._batches.append((subject, sender, bodies, size))
        self._bytes += size
        while self._bytes > MAX_KEPT_BYTES and len(self._batches) > 1:
            dropped = self._batches.popleft()
            self._bytes -= dropped[3]
            self.lost += len(dropped[2])
        self._wake()

    def end(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
