"""Tunnels of nodes on memory links: a device that is a list, and a watcher that writes down."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from errno import EINVAL

from nodes.engine import Engine
from nodes.tunnel.device import NoDevice
from nodes.tunnel.prefixes import parse
from nodes.tunnel.records import EVERYTHING, NOTHING, Takes
from nodes.tunnel.tunnel import Tunnel
from tests.support.memory_mesh import MemoryMesh, Nature

PLAIN = bytes(10)


def offloaded(kind: int, size: int) -> bytes:
    """The header of a super-packet of TCP or UDP in IPv4."""
    return struct.pack("=BBHHHH", 1, kind, 40, size, 20, 16 if kind == 1 else 6)


class MemoryDevice:
    """What the kernel would read and write. `can_take` is what it knows of offload."""

    name = "tun0"

    def __init__(self, can_take: Takes = EVERYTHING) -> None:
        self.waiting: deque[bytes] = deque()
        self.written: list[tuple[bytes, bytes]] = []  # header and packet
        self.given: list[Takes] = []  # as it was told
        self.refuses = False  # super-packets
        self.gone = self.closed = False
        self._can = can_take
        self._readable: Callable[[], None] | None = None

    def send(self, *packets: bytes, vnet: bytes = PLAIN) -> None:
        """The host sends these into the device."""
        self.waiting += [vnet + packet for packet in packets]
        while self.waiting and self._readable is not None:
            self._readable()

    @property
    def packets(self) -> list[bytes]:
        """Those that came out, since the last look."""
        came = [packet for _, packet in self.written]
        self.written.clear()
        return came

    def read(self, into: memoryview) -> int:
        if self.gone:
            raise NoDevice("File descriptor in bad state")
        if not self.waiting:
            return -1
        data = self.waiting.popleft()
        into[: len(data)] = data
        return len(data)

    def write(self, vnet: bytes, packet: memoryview) -> int:
        if self.refuses and vnet[1]:
            return EINVAL
        self.written.append((vnet, bytes(packet)))
        return 0

    def give(self, wanted: Takes) -> Takes:
        self.given.append(wanted & self._can)
        return wanted & self._can

    def can(self) -> Takes:
        return self._can

    def watch(self, readable: Callable[[], None]) -> None:
        self._readable = readable

    def stop(self) -> None:
        self._readable = None

    def close(self) -> None:
        self.stop()
        self.closed = True


class End:
    """A tunnel of one node; Watcher of it."""

    def __init__(
        self, engine: Engine, device: MemoryDevice, mtu: int = 1420, wanted: Takes = EVERYTHING
    ) -> None:
        self.engine, self.device = engine, device
        self.events: list[tuple[str, str]] = []  # what, peer
        self.details: list[str] = []
        self.sought: list[str] = []
        self.tunnel = Tunnel(device, mtu, wanted, self, engine.clock)
        engine.tunnels.add(self.tunnel)

    def event(self, what: str, peer: str, detail: str) -> None:
        self.events.append((what, peer))
        self.details.append(detail)

    def seek(self, peer: str) -> None:
        self.sought.append(peer)

    def takes_less(self) -> None:
        self.engine.tunnels.announce(self.tunnel)

    def peer(self, key: str, *prefixes: str) -> None:
        self.engine.tunnels.set_peer(self.tunnel, key, [parse(text) for text in prefixes], "")

    def close(self) -> None:
        self.engine.tunnels.remove(self.tunnel)

    def losses(self, key: str) -> dict[str, int]:
        return self.tunnel.peers[key].losses()


class TwoEnds:
    """Nodes a and b, linked, with a tunnel each: 10.9.0.1 and 10.9.0.2."""

    def __init__(
        self,
        nature: Nature | None = None,
        *,
        a: MemoryDevice | None = None,
        b: MemoryDevice | None = None,
        mtus: Sequence[int] = (1420, 1420),
        wanted: Sequence[Takes] = (EVERYTHING, EVERYTHING),
    ) -> None:
        self.mesh = MemoryMesh("a", "b", nature=nature)
        self.mesh.link("a", "b")
        self.mesh.route("a", "b")
        engines = self.mesh.engines
        self.a = End(engines["a"], a or MemoryDevice(), mtus[0], wanted[0])
        self.b = End(engines["b"], b or MemoryDevice(), mtus[1], wanted[1])
        self.key_a, self.key_b = self.mesh.key("a"), self.mesh.key("b")

    def meet(self) -> None:
        """Both take each other as peers."""
        self.a.peer(self.key_b, "10.9.0.2/32", "fd09::2/128")
        self.b.peer(self.key_a, "10.9.0.1/32", "fd09::1/128")
        self.run(1)

    def run(self, seconds: float = 0.5) -> None:
        self.mesh.run(seconds)


__all__ = ["EVERYTHING", "NOTHING", "PLAIN", "End", "MemoryDevice", "TwoEnds", "offloaded"]
