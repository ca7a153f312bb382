"""Links inside one process, for tests: they deliver when told to, and are full when told to be."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from nodes.links.base import Metrics
from nodes.links.packet import OF_THE_LINK, Received, expect_no_hello
from nodes.wire import WireError

if TYPE_CHECKING:
    from nodes.links.base import Account, LinkOwner, Packet


class MemoryLink:
    """One direction's sending end; `twin` is the other. Made by `memory_links`."""

    def __init__(self, neighbour: str, owner: LinkOwner, capacity: int) -> None:
        self.neighbour = neighbour
        self.name = neighbour
        self.alive = True
        self.twin: MemoryLink
        self._owner = owner
        self._capacity = capacity
        self._sent: deque[tuple[bytearray, Account | None]] = deque()
        self._in = self._out = 0

    def connection(self, label: int, lane: int) -> int:  # noqa: ARG002 - there is only one
        return 0

    def full(self, label: int = 0, lane: int = 0) -> bool:  # noqa: ARG002 - one for all
        return len(self._sent) > self._capacity

    @property
    def waiting(self) -> int:
        """Frames sent and not delivered yet."""
        return len(self._sent)

    def send(self, head: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        if self.alive:
            self._sent.append((bytearray(head) + payload, None))

    def forward(self, head: bytes, packet: Packet, account: Account) -> None:
        if self.alive:
            data = bytearray(head) + packet.payload
            account.kept += len(data)
            self._sent.append((data, account))

    def metrics(self) -> Metrics:
        queued = sum(len(data) for data, _ in self._sent)
        return Metrics(bytes_in=self._in, bytes_out=self._out, queued=queued)

    def cut(self, reason: str) -> None:
        """End the link at both ends."""
        for link in (self, self.twin):
            if link.alive:
                link.alive = False
                link.owner.link_down(link, reason)

    @property
    def owner(self) -> LinkOwner:
        return self._owner

    def deliver(self) -> bool:
        """Hand the oldest frame to the other end; False when there was none."""
        if not self._sent or not self.alive:
            return False
        was_full = self.full()
        data, account = self._sent.popleft()
        self._out += len(data)
        if account is not None:
            account.kept -= len(data)
        self.twin.arrived(data)
        if was_full and not self.full():
            self._owner.writable(self, 0)
        return True

    def arrived(self, data: bytearray) -> None:
        self._in += len(data)
        try:
            packet = Received.of_bytes(data)
            if packet.type in OF_THE_LINK:
                expect_no_hello(packet.type)
            else:
                self._owner.received(self, packet)
        except WireError as error:
            self.cut(f"it broke the protocol: {error}")


def memory_links(
    a: str, at_a: LinkOwner, b: str, at_b: LinkOwner, *, capacity: int = 4
) -> tuple[MemoryLink, MemoryLink]:
    """Link the nodes with keys `a` and `b`; returns the end at a and the end at b."""
    here, there = MemoryLink(b, at_a, capacity), MemoryLink(a, at_b, capacity)
    here.twin, there.twin = there, here
    at_a.link_up(here)
    at_b.link_up(there)
    return here, there
