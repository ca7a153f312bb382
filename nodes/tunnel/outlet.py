"""The way of a peer's packets into one lane of its session: sent at once, or after their turn.

While the lane takes what comes, packets are sealed from the buffer into which they were read; small ones
that were read in the same turn go as one record. When it does not, they wait in a `FairQueue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from nodes.tunnel import records
from nodes.tunnel.queue import FairQueue, Packet
from nodes.tunnel.records import ENTRY, HEAD, JOINED, Kind

if TYPE_CHECKING:
    from nodes.lane import Lane
    from nodes.tunnel.vnet import Shape

SMALL: Final = 4096  # bytes of a packet that may be joined with others
LEAST_RECORD: Final = 4096  # bytes that are joined, however slow the way is
_MUCH: Final = 1 << 40
FRONT: Final = 10  # bytes before a packet in the buffer, where the kernel writes its header
_HEAD_AT: Final = FRONT - HEAD.size


class Account(Protocol):
    """Whose packets they are."""

    bytes_out: int
    packets_out: int


class Outlet:
    """See the module. Waiting and Sender of `nodes.lane`, for the lane `lane` of the session."""

    __slots__ = (
        "_account",
        "_batch",
        "_batched",
        "_carried",
        "_parked",
        "_way",
        "lane",
        "queue",
        "slot",
    )

    def __init__(self, lane: int, account: Account) -> None:
        self.lane = lane
        self.slot = 0
        self.queue = FairQueue()
        self._account = account
        self._way: Lane | None = None  # None: the peer is down
        self._batch: list[bytes] = []  # entries and packets that go as one record
        self._batched = 0  # bytes of it
        self._carried: Packet | None = None  # taken from the queue, not sent yet
        self._parked = False

    @property
    def lately(self) -> int:
        """What the lane judges by who may go first: those who send little."""
        return 0 if self.queue.urgent or not self.queue else _MUCH

    @lately.setter
    def lately(self, value: int) -> None:
        """The queue knows better."""

    def use(self, way: Lane | None) -> None:
        """Send on this session from now on; None: drop what waits."""
        if way is not self._way:
            self._way = way
            self._batch.clear()
            self._batched = 0
            self._parked = False
            self._carried = None
            self.queue.clear("down")

    def offer(self, key: bytes, buffer: memoryview, shape: Shape, version: int, now: float) -> None:
        """Take the packet behind FRONT in `buffer`; call `flush` at the end of the turn."""
        way = self._way
        if way is None:
            return
        if self._parked or self.queue or not way.ready(self):
            self.queue.push(key, Packet(bytearray(buffer[FRONT:]), shape, version, now))
            if not self._parked:
                self._park(way)
            return
        size = len(buffer) - FRONT
        if size <= SMALL and not shape.size:
            if self._batched + size + ENTRY.size > max(way.frame, LEAST_RECORD):
                self.flush()
            packet = bytes(buffer[FRONT:])
            self._batch += (records.entry(packet, unfinished=bool(shape.kind)), packet)
            self._batched += size + ENTRY.size
            return
        self.flush()
        HEAD.pack_into(buffer, _HEAD_AT, Kind.PACKET, shape.kind, shape.size)
        self._send(way, buffer[_HEAD_AT:], 1, size)

    def flush(self) -> None:
        """Send the small packets that were taken in this turn."""
        batch, way = self._batch, self._way
        if batch and way is not None:
            count = len(batch) // 2
            self._send(way, b"".join((JOINED, *batch)), count, self._batched - count * ENTRY.size)
            batch.clear()
            self._batched = 0

    def unpark(self) -> None:
        """It is this lane's turn."""
        self._parked = False
        way = self._way
        while way is not None and (self.queue or self._carried is not None):
            if not way.ready(self):
                self._park(way)
                return
            if not self._send_next(way):
                return
            if self.queue and way.crowded(self):
                self._park(way)
                return

    def _park(self, way: Lane) -> None:
        self._parked = True
        way.park(self, self)

    def _send_next(self, way: Lane) -> bool:
        """Send one record of what waits; whether there was anything."""
        now = way.now
        packet = self._take(now)
        if packet is None:
            return False
        most = max(way.frame, LEAST_RECORD)
        size = len(packet.data)
        pieces: list[bytes | bytearray] = [JOINED]
        total = count = 0
        while packet is not None and not packet.shape.size and size <= SMALL:
            if count and total + size + (count + 1) * ENTRY.size > most:
                break
            pieces += (records.entry(packet.data, unfinished=bool(packet.shape.kind)), packet.data)
            total, count = total + size, count + 1
            packet = self._take(now)
            size = len(packet.data) if packet is not None else 0
        if count:
            self._carried = packet
            self._send(way, b"".join(pieces), count, total)
        elif packet is not None:
            self._send(way, records.packet(packet.shape, packet.data), 1, size)
        return True

    def _take(self, now: float) -> Packet | None:
        carried, self._carried = self._carried, None
        return carried or self.queue.pop(now)

    def _send(self, way: Lane, record: bytes | memoryview, packets: int, size: int) -> None:
        self._account.bytes_out += size
        self._account.packets_out += packets
        way.send_record(self.lane, record)
