"""The connection of a link over ZeroMQ: sends at once or keeps until there is room."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from bus.sockets import Again, Frame, ZMQError
from nodes.links.packet import Received
from nodes.wire import HEAD

if TYPE_CHECKING:
    from nodes.links.base import Account, Packet

MAX_BACKLOG: Final = 256 << 20  # bytes kept for a neighbour that does not read


class Carrier(Protocol):
    """The socket that a connection sends through."""

    def transmit(self, rid: bytes, data: bytes | Frame) -> None:
        """Send to one connection; raises Again when it has no room, ZMQError when it is gone."""
        ...

    def blocked(self, line: ZmqLine) -> None:
        """The connection has bytes to keep: flush it when there may be room."""
        ...

    def drop(self, line: ZmqLine) -> None:
        """End the connection."""
        ...


class LineOwner(Protocol):
    """The link that a connection belongs to."""

    def received(self, packet: Packet) -> None:
        """Raises WireError."""
        ...

    def control_writable(self) -> None: ...

    def fail(self, reason: str) -> None:
        """The link has ended."""
        ...

    def cut(self, reason: str) -> None:
        """End the link, but not before this call is over."""
        ...


class ZmqLine:
    """See the module. `rid` is what the ROUTER calls it."""

    __slots__ = (
        "_backlog",
        "_carrier",
        "alive",
        "blocked",
        "bytes_in",
        "bytes_out",
        "kept",
        "link",
        "rid",
    )

    def __init__(self, carrier: Carrier, rid: bytes) -> None:
        self.rid = rid
        self.link: LineOwner  # set by who makes the link
        self.blocked = False  # something is kept
        self.alive = True
        self.kept = 0  # bytes
        self.bytes_in = 0
        self.bytes_out = 0
        self._carrier = carrier
        self._backlog: deque[tuple[bytes | Frame, int, Account | None]] = deque()

    @property
    def room(self) -> int:
        """Bytes that are kept before the link is cut."""
        return MAX_BACKLOG - self.kept

    def send(self, head: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        self._send(head + payload, None)

    def forward(self, head: bytes, packet: Packet, account: Account) -> None:
        if isinstance(packet, Received) and packet.frame is not None:
            packet.frame.buffer[: HEAD.size] = head
            self._send(packet.frame, account)
        else:
            self._send(head + packet.payload, account)

    def flush(self) -> bool:
        """Send what was kept; True when something went out."""
        moved = False
        while self._backlog and self.alive:
            data, size, account = self._backlog[0]
            if not self._try(data):
                return moved
            self._backlog.popleft()
            self.kept -= size
            if account is not None:
                account.kept -= size
            moved = True
        self.blocked = False
        return True

    def end(self) -> None:
        """End the connection."""
        if self.alive:
            self.alive = self.blocked = False
            for _, size, account in self._backlog:
                if account is not None:
                    account.kept -= size
            self._backlog.clear()
            self.kept = 0
            self._carrier.drop(self)

    def _send(self, data: bytes | Frame, account: Account | None) -> None:
        if not self.alive:
            return
        size = len(data)
        self.bytes_out += size
        if not self.blocked and self._try(data):
            return
        self._backlog.append((data, size, account))
        self.kept += size
        if account is not None:
            account.kept += size
        if not self.blocked:
            self.blocked = True
            self._carrier.blocked(self)
        if self.kept > MAX_BACKLOG:
            self.link.cut("it does not read")

    def _try(self, data: bytes | Frame) -> bool:
        try:
            self._carrier.transmit(self.rid, data)
        except Again:
            return False
        except ZMQError as error:
            self.link.cut(error.strerror or str(error))
        return True
