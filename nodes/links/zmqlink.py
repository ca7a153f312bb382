"""A link to one neighbour over ZeroMQ: sends at once or keeps until there is room."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from bus.sockets import Again, Frame, ZMQError

if TYPE_CHECKING:
    from nodes.links.base import Account, Packet

MAX_BACKLOG: Final = 256 << 20  # bytes kept for a neighbour that does not read


class Carrier(Protocol):
    """The socket that a link sends through."""

    def transmit(self, rid: bytes, data: bytes | memoryview | Frame) -> None:
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
        "dialled",
        "full",
        "name",
        "neighbour",
        "quiet",
        "silent",
    )

    def __init__(self, carrier: Carrier, rid: bytes, neighbour: str, *, dialled: bool) -> None:
        self.neighbour = neighbour
        self.name = ""
        self.dialled = dialled
        self.full = False
        self.alive = True
        self.silent = 0  # ticks since the last frame came
        self.quiet = True  # nothing was sent since the last tick
        self._carrier = carrier
        self._rid = rid
        self._backlog: deque[tuple[bytes | Frame, int, Account | None]] = deque()
        self._kept = 0

    @property
    def rid(self) -> bytes:
        return self._rid

    def send(self, data: bytes | memoryview) -> None:
        if self.full or not self._try(data):
            self._keep(bytes(data), len(data), None)

    def forward(self, packet: Packet, account: Account) -> None:
        if not isinstance(packet, Frame):
            self.send(packet.buffer)
        elif self.full or not self._try(packet):
            self._keep(packet, len(packet.buffer), account)

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
        self.full = False
        return True

    def discard(self) -> None:
        self.alive = self.full = False
        self._backlog.clear()

    def _try(self, data: bytes | memoryview | Frame) -> bool:
        self.quiet = False
        try:
            self._carrier.transmit(self._rid, data)
        except Again:
            return False
        except ZMQError as error:
            self._carrier.fail_later(self, error.strerror or str(error))
        return True

    def _keep(self, data: bytes | Frame, size: int, account: Account | None) -> None:
        if not self.alive:
            return
        self._backlog.append((data, size, account))
        self._kept += size
        if account is not None:
            account.kept += size
        if not self.full:
            self.full = True
            self._carrier.blocked(self)
        if self._kept > MAX_BACKLOG:
            self._carrier.fail_later(self, "it does not read")
