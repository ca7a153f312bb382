"""Links inside one process, for tests: they deliver when told to, and are full when told to be."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nodes.wire import WireError

if TYPE_CHECKING:
    from nodes.links.base import Account, LinkOwner, Packet


@dataclass(slots=True)
class MemoryPacket:
    """A frame with a buffer of its own."""

    buffer: memoryview


class MemoryLink:
    """One direction's sending end; `twin` is the other. Made by `memory_links`."""

    def __init__(self, neighbour: str, owner: LinkOwner, capacity: int) -> None:
        self.neighbour = neighbour
        self.name = neighbour
        self.alive = True
        self.twin: MemoryLink
        self._owner = owner
        self._capacity = capacity
        self._sent: deque[tuple[MemoryPacket, Account | None]] = deque()

    @property
    def full(self) -> bool:
        return len(self._sent) > self._capacity

    @property
    def waiting(self) -> int:
        """Frames sent and not delivered yet."""
        return len(self._sent)

    def send(self, data: bytes | memoryview) -> None:
        if self.alive:
            self._sent.append((MemoryPacket(memoryview(bytearray(data))), None))

    def forward(self, packet: Packet, account: Account) -> None:
        if self.alive:
            account.kept += len(packet.buffer)
            self._sent.append((MemoryPacket(packet.buffer), account))

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
        was_full = self.full
        packet, account = self._sent.popleft()
        if account is not None:
            account.kept -= len(packet.buffer)
        try:
            self.twin.owner.received(self.twin, packet)
        except WireError as error:
            self.twin.cut(f"it broke the protocol: {error}")
        if was_full and not self.full:
            self._owner.writable(self)
        return True


def memory_links(
    a: str, at_a: LinkOwner, b: str, at_b: LinkOwner, *, capacity: int = 4
) -> tuple[MemoryLink, MemoryLink]:
    """Link the nodes with keys `a` and `b`; returns the end at a and the end at b."""
    here, there = MemoryLink(b, at_a, capacity), MemoryLink(a, at_b, capacity)
    here.twin, there.twin = there, here
    at_a.link_up(here)
    at_b.link_up(there)
    return here, there
