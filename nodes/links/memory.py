"""Links inside one process on a clock of their own, for tests: nothing happens by itself.

A `World` holds the clock and what is under way. Its links have delay, jitter, a rate and queues, all
drawn from one seed: the same calls give the same run. Frames of one connection stay in order; those
of different connections overtake each other as jitter has it. A partition holds frames up until it
is healed or the link counts as dead; a link that is cut loses what is under way, but for a prefix
of each connection, as with TCP.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nodes import wire
from nodes.links.base import Metrics
from nodes.links.packet import OF_THE_LINK, Received, expect_no_hello
from nodes.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodes.links.base import Account, LinkOwner, Packet

DATA_CONNECTIONS: Final = 4
MAX_BACKLOG: Final = 64 << 20  # bytes of one connection, as of links over TCP
DEAD_AFTER: Final = 3.0  # s without a sign of life


@dataclass(frozen=True, slots=True)
class Nature:
    """What a link is like; times in seconds."""

    delay: float = 0.0  # one way
    jitter: float = 0.0  # at most so much more, for each frame
    rate: float | None = None  # bytes a second, all connections of one direction together
    capacity: int = 128 * 1024  # bytes of one connection that may wait before it is full


class World:
    """The clock, and all that is to happen."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.random = random.Random(seed)  # noqa: S311 - a test shall run the same way again
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def link(
        self, a: str, at_a: LinkOwner, b: str, at_b: LinkOwner, nature: Nature | None = None
    ) -> tuple[MemoryLink, MemoryLink]:
        """Link the nodes with keys `a` and `b`; returns the end at a and the end at b."""
        nature = nature or Nature()
        here, there = MemoryLink(self, b, at_a, nature), MemoryLink(self, a, at_b, nature)
        here.twin, there.twin = there, here
        at_a.link_up(here)
        at_b.link_up(there)
        return here, there

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Have `call` called at the time `when`; those of one time in the order of asking."""
        heapq.heappush(self._due, (max(when, self.now), next(self._order), call))

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Have `call` called again and again; `run` without end never comes back then."""

        def again() -> None:
            call()
            self.at(self.now + seconds, again)

        self.at(self.now + seconds, again)

    @property
    def next_time(self) -> float | None:
        """When the next thing is to happen."""
        return self._due[0][0] if self._due else None

    def step(self) -> bool:
        """Let the next thing happen; False when nothing is to happen any more."""
        if not self._due:
            return False
        self.now, _, call = heapq.heappop(self._due)
        call()
        return True

    def run(self, seconds: float | None = 0.0) -> None:
        """Let all happen that is due within `seconds`; None: until nothing is."""
        end = None if seconds is None else self.now + seconds
        while self._due and (end is None or self._due[0][0] <= end):
            self.step()
        if end is not None:
            self.now = end


@dataclass(slots=True)
class _Way:
    """One connection in one direction."""

    number: int
    sending: deque[tuple[bytearray, Account | None]] = field(default_factory=deque)
    flying: deque[bytearray] = field(default_factory=deque)
    waiting: int = 0  # bytes in `sending`
    missed: int = 0  # frames of `flying` that a partition kept from arriving
    last: float = 0.0  # when the last frame that left arrives
    blocked: bool = False


class MemoryLink:
    """See nodes.links.base.Link. What is sent here arrives at `twin`. Made by `World.link`."""

    def __init__(self, world: World, neighbour: str, owner: LinkOwner, nature: Nature) -> None:
        self.neighbour = neighbour
        self.name = neighbour
        self.alive = True
        self.nature = nature
        self.owner = owner
        self.twin: MemoryLink
        self._world = world
        self._ways = [_Way(number) for number in range(1 + DATA_CONNECTIONS)]
        self._next: deque[_Way] = deque()  # whose frames go out, in this order
        self._busy = False  # a frame is going out
        self._held_since: float | None = None  # a partition began
        self._broken = False  # cut at one end, which the other may not know yet
        self._in = self._out = 0

    # The interface ------------------------------------------------------------------------------

    def connection(self, label: int, lane: int) -> int:
        return 1 + (label + lane) % DATA_CONNECTIONS if 1 <= lane <= wire.DATA_LANES else 0

    def full(self, label: int = 0, lane: int = 1) -> bool:
        return self._ways[self.connection(label, lane)].blocked

    def room(self, head: bytes) -> int:
        return MAX_BACKLOG - self._ways[self._number(bytearray(head))].waiting

    def send(self, head: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        self._enqueue(bytearray(head) + payload, None)

    def forward(self, head: bytes, packet: Packet, account: Account) -> None:
        self._enqueue(bytearray(head) + packet.payload, account)

    def metrics(self) -> Metrics:
        return Metrics(
            rtt=self.nature.delay + self.twin.nature.delay,
            bytes_in=self._in,
            bytes_out=self._out,
            rate=self.nature.rate,
            queued=self.waiting,
        )

    def cut(self, reason: str) -> None:
        """End the link: here at once, at the twin when it can know."""
        if self._broken:
            return
        self._break_off()
        self.twin._break_off()  # noqa: SLF001 - the same class
        for way in self.twin._ways:  # noqa: SLF001
            way.flying.clear()
        world, nature = self._world, self.nature
        world.at(world.now, lambda: self._end(reason))
        later = world.now + nature.delay + nature.jitter
        world.at(later, lambda: self.twin._end("the connection ended"))  # noqa: SLF001

    # For tests ----------------------------------------------------------------------------------

    @property
    def sound(self) -> bool:
        """Neither cut nor held up."""
        return self.alive and not self._broken and self._held_since is None

    @property
    def waiting(self) -> int:
        """Bytes sent here that have not left yet."""
        return sum(way.waiting for way in self._ways)

    def partition(self, *, both: bool = True) -> None:
        """Let nothing arrive at the twin, nor here if `both`, until `heal` or the link's death."""
        for link in (self, self.twin) if both else (self,):
            link._hold()  # noqa: SLF001 - the same class

    def heal(self) -> None:
        """Let what was held up arrive, and all else again."""
        for link in (self, self.twin):
            link._release()  # noqa: SLF001 - the same class

    # What happens -------------------------------------------------------------------------------

    def _enqueue(self, data: bytearray, account: Account | None) -> None:
        if self._broken:
            return
        if account is not None:
            account.kept += len(data)
        way = self._ways[self._number(data)]
        way.sending.append((data, account))
        way.waiting += len(data)
        way.blocked = way.waiting > self.nature.capacity
        self._next.append(way)
        if not self._busy:
            self._go_on()

    def _number(self, data: bytearray) -> int:
        """The connection for a frame; what is no frame goes over the first."""
        try:
            kind, lane, _, _, label, _ = wire.parse_frame(memoryview(data))
        except WireError:
            return 0
        ordered = kind == wire.FrameType.DATA and 1 <= lane <= wire.DATA_LANES
        return self.connection(label, lane) if ordered else 0

    def _go_on(self) -> None:
        """Begin to put the next frame out."""
        self._busy = bool(self._next) and self._held_since is None
        if self._busy:
            size = len(self._next[0].sending[0][0])
            takes = size / self.nature.rate if self.nature.rate else 0.0
            self._world.at(self._world.now + takes, self._leave)

    def _leave(self) -> None:
        if self._broken:
            return
        way = self._next.popleft()
        data, account = way.sending.popleft()
        way.waiting -= len(data)
        self._out += len(data)
        if account is not None:
            account.kept -= len(data)
        way.flying.append(data)
        delay = self.nature.delay + self._world.random.uniform(0.0, self.nature.jitter)
        way.last = max(way.last, self._world.now + delay)
        self._world.at(way.last, lambda: self._arrive(way))
        self._go_on()
        if way.blocked and way.waiting <= self.nature.capacity:
            way.blocked = False
            self.owner.writable(self, way.number)

    def _arrive(self, way: _Way) -> None:
        if self._held_since is not None:
            way.missed += 1
        elif way.flying:
            self.twin._received(way.flying.popleft())  # noqa: SLF001 - the same class

    def _received(self, data: bytearray) -> None:
        if not self.alive:
            return
        self._in += len(data)
        try:
            packet = Received.of_bytes(data)
            if packet.type in OF_THE_LINK:
                expect_no_hello(packet.type)
            else:
                self.owner.received(self, packet)
        except WireError as error:
            self.cut(f"it broke the protocol: {error}")

    def _hold(self) -> None:
        if self._held_since is None:
            since = self._held_since = self._world.now
            self._world.at(since + DEAD_AFTER, lambda: self._die(since))

    def _release(self) -> None:
        if self._held_since is None:
            return
        self._held_since = None
        for way in self._ways:
            for _ in range(way.missed):
                way.last = max(way.last, self._world.now + self.nature.delay)
                self._world.at(way.last, lambda way=way: self._arrive(way))  # type: ignore[misc]
            way.missed = 0
        if not self._busy:
            self._go_on()

    def _die(self, since: float) -> None:
        if self._held_since == since and not self._broken:
            self._break_off()
            self.twin._break_off()  # noqa: SLF001 - the same class
            self.twin._end("no sign of life for 3 s")  # noqa: SLF001
            self._end("no sign of life for 3 s")

    def _break_off(self) -> None:
        """Lose what is under way, but for a prefix of each connection."""
        self._broken = True
        self._next.clear()
        for way in self._ways:
            for data, account in way.sending:
                if account is not None:
                    account.kept -= len(data)
            way.sending.clear()
            way.waiting, way.blocked = 0, False
            for _ in range(self._world.random.randint(0, len(way.flying))):
                way.flying.pop()

    def _end(self, reason: str) -> None:
        if self.alive:
            self.alive = False
            self.owner.link_down(self, reason)
