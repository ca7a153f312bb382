"""What a subscription has for its reader: batches as they arrived, read one message at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from operator import length_hint

import msgspec

from bus.errors import BusError, Overflow

MAX_KEPT_BYTES = 64 << 20  # of messages that a subscription holds for a slow reader
MAX_GAPS = 1024  # that are remembered
DROP_OLD, DROP_NEW, DISCONNECT = "drop_old", "drop_new", "disconnect"
_BATCH_COST, _BODY_COST = 400, 48  # bytes that keeping them takes beside what is in them


class Message(msgspec.Struct, frozen=True, gc=False):
    """What a subscription yields and a signal handler gets; `sender` is the proved key, Z85."""

    subject: str
    sender: str
    body: bytes


class Share:
    """The window of a queue group's member: `grant` gives back what its reader is done with.

    What arrived over an earlier connection is not given back: the broker has forgotten it.
    """

    def __init__(self, window: int, grant: Callable[[int], None]) -> None:
        self._half = max(1, window // 2)
        self._grant = grant
        self._under_way = 0  # arrived, not done with
        self._foreign = 0  # of these: the first so many, of an earlier connection
        self._owed = 0

    def arrived(self, n: int) -> None:
        self._under_way += n

    def done(self, n: int) -> None:
        """The reader is done with the `n` oldest."""
        foreign = min(n, self._foreign)
        self._foreign -= foreign
        self._under_way -= n
        self._owed += n - foreign
        if self._owed >= self._half:
            self.flush()

    def flush(self) -> None:
        """Nothing is left to read: give back all."""
        if self._owed:
            owed, self._owed = self._owed, 0
            self._grant(owed)

    def restarted(self) -> None:
        self._foreign, self._owed = self._under_way, 0


class Subscription:
    """Messages of one pattern, in order: `async for message in subscription`.

    A reader that falls `MAX_KEPT_BYTES` behind loses the oldest, or with the policy drop_new the newest.
    With disconnect the subscription ends rather than miss anything: with `Overflow`, or `Unreachable` when
    the connection was lost. `lost` counts what was dropped here and at the broker. Iterating again goes on
    where the last iteration stopped.
    """

    def __init__(
        self,
        pattern: str,
        drop: Callable[[], None],
        *,
        policy: str = DROP_OLD,
        share: Share | None = None,
    ) -> None:
        self.pattern = pattern
        self.policy = policy
        self.lost = 0
        self.live = False  # the broker has confirmed it
        self._drop = drop  # tells the broker that nobody reads any more
        self._share = share  # of a queue group
        self._gaps: deque[tuple[int, int]] = deque(maxlen=MAX_GAPS)
        self._count = 0  # messages that were for it, up to the last that arrived
        self._before = 0  # of these: over earlier connections
        # Subject, sender, bodies, their size, and the count before the first of them.
        self._batches: deque[tuple[str, str, list[bytes], int, int]] = deque()
        self._bytes = 0  # of all batches
        self._subject = self._sender = ""  # of the batch being read
        self._bodies: Iterator[bytes] = iter(())
        self._held = 0  # messages of the batch being read, as far as the group's window counts
        self._arrival: asyncio.Future[None] | None = None
        self._error: BusError | None = None
        self._closed = False

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """What was dropped, as far as it is remembered: (first, how many).

        `first` counts the messages that were for this subscription, from 1, on all its connections; what
        was published while there was no connection is not among them.
        """
        return list(self._gaps)

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
        if self._share is not None:
            self._share.done(self._held)
            self._held = 0
        while not self._batches:
            if self._closed:
                if self._error is not None:
                    raise self._error
                return False
            if self._share is not None:
                self._share.flush()
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        self._subject, self._sender, bodies, size, _ = self._batches.popleft()
        self._bodies = iter(bodies)
        self._bytes -= size
        if self._share is not None:
            self._held = len(bodies)
        return True

    async def close(self) -> None:
        """No more messages after those that are here already."""
        self._drop()
        self.end()

    # For the client.

    def put(self, subject: str, sender: str, bodies: list[bytes], size: int) -> None:
        """Keep a batch, dropping by policy what does not fit."""
        if self._closed:
            return
        before, n = self._count, len(bodies)
        self._count += n
        if self._share is not None:
            self._share.arrived(n)
        size += _BATCH_COST + _BODY_COST * n
        if self._bytes + size > MAX_KEPT_BYTES and self._batches and not self._give_way(size, n):
            return
        self._batches.append((subject, sender, bodies, size, before))
        self._bytes += size
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def skipped(self, lost: int, first: int = 0) -> None:
        """The broker dropped `lost` messages, the first of which was the `first`-th (0: unknown)."""
        start = self._before + first - 1 if first else self._count
        self._miss(start, lost)
        self._count = max(self._count, start + lost)

    def restarted(self) -> None:
        """There is a new connection, over which the broker counts from 1 again."""
        self._before = self._count
        if self._share is not None:
            self._share.restarted()

    def end(self, error: BusError | None = None) -> None:
        """No more messages; after those that are here `error` is raised."""
        if not self._closed:
            self._closed, self._error = True, error
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _give_way(self, size: int, n: int) -> bool:
        """Make room for a batch of `size` bytes; False when it is the one to be dropped."""
        if self.policy == DISCONNECT:
            self._drop()
            self.end(Overflow(f"the reader of {self.pattern} is too slow"))
            return False
        if self.policy == DROP_NEW:
            self._miss(self._count - n, n)
            if self._share is not None:
                self._share.done(n)
            return False
        while self._bytes + size > MAX_KEPT_BYTES and self._batches:
            _, _, bodies, freed, before = self._batches.popleft()
            self._bytes -= freed
            self._miss(before, len(bodies))
            if self._share is not None:
                self._share.done(len(bodies))
        return True

    def _miss(self, before: int, n: int) -> None:
        """Remember a gap of `n` after the first `before`; those that touch are one."""
        self.lost += n
        if self._gaps and sum(self._gaps[-1]) == before + 1:
            first, lost = self._gaps.pop()
            self._gaps.append((first, lost + n))
        else:
            self._gaps.append((before + 1, n))
