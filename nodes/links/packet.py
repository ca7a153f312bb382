"""A received frame as links hand it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nodes import wire
from nodes.wire import FrameType, WireError

if TYPE_CHECKING:
    from bus.sockets import Frame

OF_THE_LINK: Final = frozenset(
    {FrameType.HELLO.value, FrameType.ALIVE.value, FrameType.PING.value, FrameType.PONG.value}
)


class Received:
    """See nodes.links.base.Packet."""

    __slots__ = ("counter", "epoch", "frame", "label", "lane", "owned", "payload", "ttl", "type")

    def __init__(
        self, head: wire.Head, payload: memoryview, *, owned: bool, frame: Frame | None = None
    ) -> None:
        self.type, self.lane, self.epoch, self.ttl, self.label, self.counter = head
        self.payload = payload
        self.owned = owned  # nobody else uses the payload's buffer
        self.frame = frame  # the ZeroMQ message, of which all but the first 16 bytes is the payload

    def keep(self) -> Received:
        if self.owned:
            return self
        head = (self.type, self.lane, self.epoch, self.ttl, self.label, self.counter)
        return Received(head, memoryview(bytearray(self.payload)), owned=True)

    @classmethod
    def of_frame(cls, frame: Frame) -> Received:
        """Read a ZeroMQ message; raises WireError."""
        data = frame.buffer
        return cls(wire.parse_frame(data), data[wire.HEAD.size :], owned=True, frame=frame)

    @classmethod
    def of_bytes(cls, data: bytearray) -> Received:
        """Read a frame that belongs to the packet from now on; raises WireError."""
        view = memoryview(data)
        return cls(wire.parse_frame(view), view[wire.HEAD.size :], owned=True)


def expect_no_hello(kind: int) -> None:
    if kind == FrameType.HELLO:
        raise WireError("HELLO on a link that is up")
