"""A link to one neighbour over ZeroMQ: sends at once or keeps until there is room."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from bus.sockets import Again, Frame, ZMQError
from nodes.links.base import Metrics
from nodes.links.packet import Received
from nodes.wire import HEAD

if TYPE_CHECKING:
    from nodes.links.base import Account, Packet

MAX_BACKLOG: Final = 256 << 20  # bytes kept for a neighbour that does not read


class Carrier(Protocol):
    """The socket that a link sends through."""

    def transmit(self, rid: bytes, data: bytes | Frame) -> None:
        """Send to one connection; raises Again when it has no room, ZMQError when it is gone."""
        ...

    def blocked(self, link: ZmqLink) -> None:
        """The link has bytes to keep: flush it when there may be room."""
        ...

    def fail_later(self, link: ZmqLink, reason: str) -> None: ...


class ZmqLink:
    """See nodes.links.base.Link."""

    __slots__ = (
        "_backlog",
        "_carrier",
        "_kept",
        "_rid",
        "alive",
        "blocked",
        "bytes_in",
        "bytes_out",
        "dialled",
        "name",
        "neighbour",
        "quiet",
        "silent",
    )

    def __init__(self, carrier: Carrier, rid: bytes, neighbour: str, *, dialled: bool) -> None:
        self.neighbour = neighbour
        self.name = ""
        self.dialled = dialled
        self.blocked = False  # something is kept
        self.alive = True
        self.bytes_in = 0
        self.bytes_out = 0
        self.silent = 0  # ticks since the last frame came
        self.quiet = True  # nothing was sent since the last tick
        self._carrier = carrier
        self._rid = rid
        self._backlog: deque[tuple[bytes | Frame, int, Account | None]] = deque()
        self._kept = 0

    @property
    def rid(self) -> bytes:
        return self._rid

    def connection(self, label: int, lane: int) -> int:  # noqa: ARG002 - there is only one
        return 0

    def full(self, label: int, lane: int) -> bool:  # noqa: ARG002 - one for all
        return self.blocked

    def send(self, head: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        data = head + payload
        if self.blocked or not self._try(data):
            self._keep(data, len(data), None)

    def forward(self, head: bytes, packet: Packet, account: Account) -> None:
        data: bytes | Frame
        if isinstance(packet, Received) and packet.frame is not None:
            data = packet.frame
            data.buffer[: HEAD.size] = head
        else:
            data = head + packet.payload
        if self.blocked or not self._try(data):
            self._keep(data, HEAD.size + len(packet.payload), account)

    def metrics(self) -> Metrics:
        return Metrics(bytes_in=self.bytes_in, bytes_out=self.bytes_out, queued=self._kept)

    def cut(self, reason: str) -> None:
        self._carrier.fail_later(self, reason)

    def flush(self) -> bool:
        """Send what was kept; True when something went out."""
        moved = False
        while self._backlog and self.alive:
            data, size, account = self._backlog[0]
            if not self._try(data):
                return moved
            self._backlog.popleft()
            self._kept -= size
            if account is not None:
                account.kept -= size
            moved = True
        self.blocked = False
        return True

    def discard(self) -> None:
        self.alive = self.blocked = False
        self._backlog.clear()

    def _try(self, data: bytes | Frame) -> bool:
        self.quiet = False
        try:
            self._carrier.transmit(self._rid, data)
        except Again:
            return False
        except ZMQError as error:
            self._carrier.fail_later(self, error.strerror or str(error))
        self.bytes_out += len(data)
        return True

    def _keep(self, data: bytes | Frame, size: int, account: Account | None) -> None:
        if not self.alive:
            return
        self._backlog.append((data, size, account))
        self._kept += size
        if account is not None:
            account.kept += size
        if not self.blocked:
            self.blocked = True
            self._carrier.blocked(self)
        if self._kept > MAX_BACKLOG:
            self._carrier.fail_later(self, "it does not read")
