"""One TUN device and the peers behind it: WireGuard's cryptokey routing over sessions.

A packet that the device gives goes to the peer whose prefix contains its destination. One that comes out
of a peer's session is written only if its source lies within that peer's own prefixes; its virtio
header is made anew, whatever the peer said.
"""

from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from nodes.tunnel import icmp, packets, vnet
from nodes.tunnel.cutting import cut
from nodes.tunnel.device import NoDevice
from nodes.tunnel.outlet import FRONT, Outlet
from nodes.tunnel.prefixes import Prefixes
from nodes.tunnel.queue import limit
from nodes.tunnel.records import NOTHING, Takes
from nodes.tunnel.vnet import BadShape, Shape
from nodes.wire import DATA_LANES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nodes.lane import Lane
    from nodes.tunnel.packets import Header

TURN_PACKETS: Final = 64  # read before others have their turn
TURN_BYTES: Final = 256 * 1024
FAILURES: Final = (
    8  # super-packets in a row that the kernel did not take, until it is asked no more
)
SEEK_AFTER: Final = 5.0  # s between two looks for a way to a peer that is down; doubled
SEEK_AT_MOST: Final = 60.0
ANSWERS: Final = 64  # ICMP messages a second
_BUFFER: Final = memoryview(bytearray(FRONT + packets.LARGEST))  # used and left within one call
_PLAIN: Final = Shape(vnet.NONE, 0)
_NEEDS: Final = {
    vnet.NONE: NOTHING,
    vnet.UNFINISHED: Takes.CHECKSUM,
    vnet.TCP4 | vnet.UNFINISHED: Takes.CHECKSUM | Takes.TCP,
    vnet.TCP6 | vnet.UNFINISHED: Takes.CHECKSUM | Takes.TCP,
    vnet.UDP4 | vnet.UNFINISHED: Takes.CHECKSUM | Takes.UDP,
}


class TunDevice(Protocol):
    """What a tunnel needs of its device (nodes.tunnel.device)."""

    name: str

    def read(self, into: memoryview) -> int: ...

    def write(self, vnet: bytes, packet: memoryview) -> int: ...

    def give(self, wanted: Takes) -> Takes: ...

    def can(self) -> Takes: ...

    def watch(self, readable: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Watcher(Protocol):
    """Who is told what happens to a tunnel."""

    def event(self, what: str, peer: str, detail: str) -> None: ...

    def seek(self, peer: str) -> None:
        """Packets for a peer wait that cannot be reached: look for a way."""
        ...

    def takes_less(self) -> None:
        """The tunnel takes less than before; the peers must be told."""
        ...


class Peer:
    """One peer: its way out, and what went through."""

    def __init__(self, key: str, now: float) -> None:
        self.key = key
        self.name = ""  # what the app calls it
        self.since = now
        self.takes: Takes = NOTHING
        self.mtu = 0  # 0: it is down
        self.bytes_in = self.packets_in = self.bytes_out = self.packets_out = 0
        self.dropped: Counter[str] = Counter()
        self.outlets = tuple(Outlet(lane, self) for lane in range(1, DATA_LANES + 1))
        self._seek_at = now
        self._seek_pause = SEEK_AFTER

    @property
    def up(self) -> bool:
        return self.mtu > 0

    @property
    def queued(self) -> int:
        """Bytes that wait."""
        return sum(outlet.queue.bytes for outlet in self.outlets)

    def losses(self) -> dict[str, int]:
        """Packets that were dropped, by reason."""
        total = self.dropped.copy()
        for outlet in self.outlets:
            total.update(outlet.queue.dropped)
        return dict(total)

    def use(self, way: Lane | None, takes: Takes, mtu: int) -> None:
        """Send on this session from now on what the far device takes; None: it is down."""
        self.takes, self.mtu = (takes, mtu) if way is not None else (NOTHING, 0)
        for outlet in self.outlets:
            outlet.use(way)
        if way is not None:
            self._seek_pause = SEEK_AFTER

    def may_seek(self, now: float) -> bool:
        """Whether it is time to look for a way; each time in vain it is longer until the next."""
        if now < self._seek_at:
            return False
        self._seek_at = now + self._seek_pause
        self._seek_pause = min(self._seek_pause * 2, SEEK_AT_MOST)
        return True


class Tunnel:
    """See the module. `accepts` is what the device can be given, `gives` what it gives now."""

    def __init__(
        self,
        device: TunDevice,
        mtu: int,
        wanted: Takes,
        watcher: Watcher,
        clock: Callable[[], float],
    ) -> None:
        self.device = device
        self.mtu = mtu
        self.accepts = device.can() & wanted
        self.gives = device.give(self.accepts)
        self.peers: dict[str, Peer] = {}
        self.prefixes: Prefixes[Peer] = Prefixes()
        self.dropped: Counter[str] = Counter()  # packets that belong to no peer
        self.watcher = watcher
        self._clock = clock
        self._touched: list[Outlet] = []
        self._refused: Counter[Takes] = Counter()  # super-packets in a row that did not get in
        self._answers = 0
        device.watch(self.readable)

    def close(self) -> None:
        self.device.close()

    def set_peer(self, key: str, prefixes: Sequence[tuple[bytes, int]], name: str) -> Peer | None:
        """Set or replace a peer, None when it is none any more. Raises BadPrefix."""
        peer = self.peers.get(key) or Peer(key, self._clock())
        self.prefixes.set(peer, prefixes)
        peer.name = name
        if prefixes:
            self.peers[key] = peer
            return peer
        self.peers.pop(key, None)
        peer.use(None, NOTHING, 0)
        return None

    def tick(self) -> None:
        """Once a second."""
        self._answers = 0
        share = limit(len(self.peers) * DATA_LANES)
        for peer in self.peers.values():
            for outlet in peer.outlets:
                outlet.queue.limit = share

    def agree(self) -> None:
        """Have the device give what its only peer takes.

        Of several one that takes less shall not slow the others down: for it packets are cut here.
        """
        wanted = self.accepts
        weakest = ""
        if len(self.peers) == 1:
            (peer,) = self.peers.values()
            if peer.up and wanted & ~peer.takes:
                wanted, weakest = wanted & peer.takes, peer.key
        if wanted != self.gives:
            self.gives = self.device.give(wanted)
            words = ", ".join(self.gives.words) or "nothing"
            self.watcher.event("offload", weakest, f"the device gives {words} from now on")

    # Device -> sessions -------------------------------------------------------------------------

    def readable(self) -> None:
        """Packets wait."""
        now, left = self._clock(), TURN_BYTES
        try:
            for _ in range(TURN_PACKETS):
                size = self.device.read(_BUFFER)
                if size < 0:
                    break
                self._outgoing(_BUFFER[:size], now)
                left -= size
                if left <= 0:
                    break
        except NoDevice as error:
            self.device.stop()
            self.watcher.event("down", "", f"the device {self.device.name} is gone: {error}")
        for outlet in self._touched:
            outlet.flush()
        self._touched.clear()

    def _outgoing(self, buffer: memoryview, now: float) -> None:
        packet = buffer[FRONT:]
        header = packets.parse(packet)
        if header is None:
            self.dropped["malformed"] += 1
            return
        peer = self.prefixes.of(header.destination)
        if peer is None:
            self.dropped["no_peer"] += 1
        elif not peer.mtu:
            peer.dropped["down"] += 1
            if peer.may_seek(now):
                self.watcher.seek(peer.key)
        else:
            self._send(peer, buffer, header, now)

    def _send(self, peer: Peer, buffer: memoryview, header: Header, now: float) -> None:
        packet = buffer[FRONT:]
        shape = vnet.describe(buffer)
        needs = _NEEDS.get(shape.kind & ~vnet.ECN)
        if needs is None:
            peer.dropped["offload"] += 1
        elif self._fits(packet, header, shape, peer):
            flow = packets.flow(packet, header)
            outlet = peer.outlets[packets.number(flow, DATA_LANES)]
            self._touched.append(outlet)
            if not needs & ~peer.takes:
                outlet.offer(flow, buffer, shape, header.version, now)
                return
            for piece in cut(packet, header, shape):
                front = memoryview(bytearray(FRONT) + piece)
                outlet.offer(flow, front, _PLAIN, header.version, now)

    def _fits(self, packet: memoryview, header: Header, shape: Shape, peer: Peer) -> bool:
        """Whether the far device takes it; the sender hears of what is too big."""
        size = len(packet)
        if shape.size:
            at = header.size
            size = at + shape.size + (packet[at + 12] >> 4 << 2 if header.protocol == 6 else 8)
        if size <= peer.mtu:
            return True
        peer.dropped["too_big"] += 1
        if self._answers < ANSWERS and packets.may_not_be_cut(packet, header):
            self._answers += 1
            answer = icmp.too_big(packet, header, peer.mtu)
            if answer is not None:
                self.device.write(vnet.PLAIN, memoryview(answer))
        return False

    # Session -> device --------------------------------------------------------------------------

    def deliver(self, peer: Peer, packet: memoryview, header: Header, shape: Shape) -> None:
        """Write a packet whose source is the peer's, if it is one that the kernel may be given."""
        needs = _NEEDS.get(shape.kind & ~vnet.ECN)
        if needs is None or needs & ~self.accepts:
            peer.dropped["not_taken"] += 1
            return
        if not shape.size and len(packet) > self.mtu:
            peer.dropped["too_big"] += 1
            return
        try:
            head = vnet.rebuild(packet, header, shape, self.mtu)
        except BadShape:
            peer.dropped["malformed"] += 1
            return
        failed = self.device.write(head, packet)
        if failed:
            self._not_written(peer, needs, failed)
            return
        if shape.size:
            self._refused.pop(needs, None)
        peer.packets_in += 1
        peer.bytes_in += len(packet)

    def _not_written(self, peer: Peer, needs: Takes, failed: int) -> None:
        """Some kernels refuse good super-packets: ask for none any more."""
        peer.dropped["device_full" if failed == errno.EAGAIN else "device"] += 1
        kind = needs & ~Takes.CHECKSUM
        if failed != errno.EINVAL or not kind:
            return
        self._refused[needs] += 1
        if self._refused[needs] >= FAILURES:
            del self._refused[needs]
            self.accepts &= ~kind
            words = ", ".join(kind.words)
            self.watcher.event("offload", "", f"the kernel refuses super-packets ({words})")
            self.watcher.takes_less()
