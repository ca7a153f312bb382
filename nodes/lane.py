"""One session's way out: frames are built here, and those who wait to send stand in line here.

Data goes out from one buffer of the whole node, its first 8 bytes being the record's header: a
pump reads into `SPACE` and calls `send_data` at once, so nothing is copied between the two.
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

_BODY: Final = wire.RECORD.size
_BUFFER: Final = memoryview(bytearray(_BODY + wire.MAX_DATA))  # used and left within one call
SPACE: Final = _BUFFER[_BODY:]
ORDERED: Final = 1  # the lane of all records


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
        link = self.link
        return link is not None and not link.full(self._label, ORDERED) and self.flows.room > 0

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
            self.link.send(self._head(), outbox.popleft())

    def send_data(self, stream: Stream, size: int) -> None:
        """Send the `size` bytes that stand in the buffer."""
        wire.RECORD.pack_into(_BUFFER, 0, Kind.DATA, 0, 0, stream.number)
        assert self.link is not None  # noqa: S101 - ready() was asked
        self.link.send(self._head(), _BUFFER[: _BODY + size])
        self.flows.sent(stream, size)

    def _head(self) -> bytes:
        number = self.session.number_out()
        return wire.head(FrameType.DATA, self._label, number, lane=ORDERED)
