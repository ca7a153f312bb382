"""One session's way out: frames are built here, and those who wait to send stand in line here.

Data goes out from one buffer of the whole node, its first 24 bytes being the headers: a pump
reads into `SPACE` and calls `send_data` at once, so nothing is copied between the two.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from nodes import wire
from nodes.wire import FrameType, Kind

if TYPE_CHECKING:
    from nodes.flows import Stream
    from nodes.links.base import Link
    from nodes.mesh import Session

_HEAD: Final = wire.VERSION << 4 | FrameType.DATA
_BODY: Final = wire.DATA_PREFIX.size
_BUFFER: Final = memoryview(bytearray(wire.MAX_FRAME))  # used and left within one call
SPACE: Final = _BUFFER[_BODY:]


class Waiting(Protocol):
    """Somebody who wants to send and could not."""

    def unpark(self) -> None:
        """Try again."""
        ...


class Lane:
    """One session's way out: the link, the label to use on it, and who waits to send."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.flows = session.flows
        self.link: Link | None = None  # None until the route is bound
        self._label = 0
        self._waiting: deque[Waiting] = deque()

    def bind(self, link: Link, label: int) -> None:
        self.link, self._label = link, label
        self.flush()
        self.resume()

    def ready(self) -> bool:
        """Whether data may be sent now."""
        return self.link is not None and not self.link.full and self.flows.room > 0

    def park(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)

    def resume(self) -> None:
        """Let those who waited send, each in its turn."""
        for _ in range(len(self._waiting)):
            if not self.ready():
                return
            self._waiting.popleft().unpark()

    def flush(self) -> None:
        """Send the control records that the streams have left."""
        outbox = self.flows.outbox
        while outbox and self.link is not None:
            number = self.session.number_out()
            self.link.send(wire.frame(FrameType.DATA, self._label, number, outbox.popleft()))

    def send_data(self, stream: Stream, size: int) -> None:
        """Send the `size` bytes that stand in the buffer."""
        number = self.session.number_out()
        wire.DATA_PREFIX.pack_into(
            _BUFFER, 0, _HEAD, 0, 0, self._label, number, Kind.DATA, 0, 0, stream.number
        )
        assert self.link is not None  # noqa: S101 - ready() was asked
        self.link.send(_BUFFER[: _BODY + size])
        self.flows.sent(stream, size)
