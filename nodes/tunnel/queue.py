"""Packets that wait for one lane of a session: a queue for each flow, short, and fair between them.

As FQ-CoDel (RFC 8290): flows take turns by bytes, one that has just begun or sends little goes before
those that fill the lane, and a flow whose packets wait too long is told by ECN or by a loss (CoDel, RFC
8289). What does not fit is taken from the flow that has the most. Pure: the clock is passed in.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import Final, NamedTuple

from nodes.tunnel.packets import mark_congestion
from nodes.tunnel.vnet import Shape

MAX_BYTES: Final = 1 << 20  # that wait in one queue, at most
LEAST_BYTES: Final = 128 * 1024  # and where there are many queues
ALL_BYTES: Final = 64 << 20  # that wait in all queues of a device, while none has less than that
MAX_PACKETS: Final = 2048
QUANTUM: Final = 16 * 1024  # bytes of a turn: a large packet is four turns
TARGET: Final = 0.005  # s that packets may wait, if it is for long (RFC 8289)
INTERVAL: Final = 0.1  # s that is long: a round trip, about
STALE: Final = 1.0  # s after which nobody wants a packet any more


class Packet(NamedTuple):
    """One that waits. `version` of IP."""

    data: bytearray
    shape: Shape
    version: int
    came: float  # when


class _Flow:
    """The packets of one flow, and CoDel's state for it (names as in RFC 8289)."""

    __slots__ = (
        "_above_since",
        "_count",
        "_dropping",
        "_next",
        "bytes",
        "deficit",
        "key",
        "packets",
    )

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.packets: deque[Packet] = deque()
        self.bytes = 0
        self.deficit = QUANTUM
        self._above_since: float | None = None  # until when it may wait too long
        self._dropping = False
        self._next = 0.0  # when the next one is dropped
        self._count = 0  # dropped, in this row

    def take(self) -> Packet:
        packet = self.packets.popleft()
        self.bytes -= len(packet.data)
        return packet

    def waits_too_long(self, packet: Packet, now: float) -> bool:
        """Whether the flow must be told with this packet that it sends too much."""
        if now - packet.came < TARGET or not self.packets:
            self._above_since = None
            self._dropping = False
            return False
        if self._above_since is None:
            self._above_since = now + INTERVAL
            return False
        if now < self._above_since:
            return False
        if not self._dropping:
            self._dropping = True
            # A row that follows the last one soon goes on where that was.
            recent = now - self._next < 16 * INTERVAL
            self._count = self._count - 2 if recent and self._count > 2 else 1
            self._next = now + INTERVAL / sqrt(self._count)
            return True
        if now < self._next:
            return False
        self._count += 1
        self._next += INTERVAL / sqrt(self._count)
        return True


class FairQueue:
    """See the module. `dropped` counts by reason."""

    def __init__(self) -> None:
        self.limit = MAX_BYTES
        self.bytes = 0
        self.packets = 0
        self.marked = 0
        self.dropped: dict[str, int] = {}
        self._flows: dict[bytes, _Flow] = {}  # those that have packets, or stand in a line
        self._new: deque[_Flow] = deque()
        self._old: deque[_Flow] = deque()

    def __bool__(self) -> bool:
        return self.packets > 0

    @property
    def urgent(self) -> bool:
        """Whether the next packet is of a flow that sends little."""
        return bool(self._new)

    def push(self, key: bytes, packet: Packet) -> None:
        """Take a packet; when there is no room the flow with the most bytes loses its oldest."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow(key)
            self._new.append(flow)
        flow.packets.append(packet)
        size = len(packet.data)
        flow.bytes += size
        self.bytes += size
        self.packets += 1
        while self.bytes > self.limit or self.packets > MAX_PACKETS:
            fattest = max(self._flows.values(), key=_bytes)
            self._took(fattest.take())
            self._drop("queue_full")

    def pop(self, now: float) -> Packet | None:
        """The next packet to send, or None when there is none."""
        while (flow := self._next()) is not None:
            packet = flow.take()
            self._took(packet)
            if now - packet.came > STALE:
                self._drop("stale")
            elif flow.waits_too_long(packet, now):
                if mark_congestion(packet.data, packet.version):
                    self.marked += 1
                    flow.deficit -= len(packet.data)
                    return packet
                self._drop("congestion")
            else:
                flow.deficit -= len(packet.data)
                return packet
        return None

    def clear(self, reason: str) -> None:
        """Drop all."""
        if self.packets:
            self.dropped[reason] = self.dropped.get(reason, 0) + self.packets
        self._flows.clear()
        self._new.clear()
        self._old.clear()
        self.bytes = self.packets = 0

    def _next(self) -> _Flow | None:
        """The flow whose turn it is, which has packets."""
        new, old = self._new, self._old
        while True:
            line = new or old
            if not line:
                return None
            flow = line[0]
            if flow.deficit <= 0:
                flow.deficit += QUANTUM
                line.popleft()
                old.append(flow)
            elif flow.packets:
                return flow
            else:
                line.popleft()
                if line is new and old:
                    old.append(flow)  # once around, so that nobody is new all the time
                else:
                    del self._flows[flow.key]

    def _took(self, packet: Packet) -> None:
        self.bytes -= len(packet.data)
        self.packets -= 1

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def limit(queues: int) -> int:
    """Bytes that each of so many queues of a device may hold."""
    return min(max(ALL_BYTES // max(queues, 1), LEAST_BYTES), MAX_BYTES)


def _bytes(flow: _Flow) -> int:
    return flow.bytes
