"""One session's way out: records are sealed and sent here, and those who wait to send stand in line.

Data goes out from one buffer of the whole node, its first 8 bytes being the record's header: a
pump reads into `SPACE` and calls `send_data` at once; sealing is the only copy. What a link does not
take at once stays with the session, in its order, and not with the link.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from nodes import wire
from nodes.acks import LANES
from nodes.session import FIRST
from nodes.wire import CONTROL_LANE, DATA_LANES, HEAD, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodes.delivery import Kept
    from nodes.flows import Flows, Stream
    from nodes.links.base import Link
    from nodes.session import Session
    from nodes.ways import Onward

_BODY: Final = wire.RECORD.size
_BUFFER: Final = memoryview(bytearray(_BODY + wire.MAX_DATA))  # used and left within one call
SPACE: Final = _BUFFER[_BODY:]
ROUNDS: Final = 256  # of turns in one go; what is left goes on with the next ACK
TTL: Final = 64  # links that a frame may pass


class Waiting(Protocol):
    """Somebody who wants to send and could not."""

    def unpark(self) -> None:
        """Try again."""
        ...


class Lane:
    """One session's way out: the link, the label to use on it, and who waits to send."""

    def __init__(self, peer: str, session: Session, clock: Callable[[], float]) -> None:
        self.peer = peer
        self.session = session
        self.link: Link | None = None  # None while there is no way
        self._label = 0
        self._clock = clock
        self._waiting: tuple[deque[Waiting], ...] = tuple(deque() for _ in range(LANES))
        self._in_turn = False  # who asks now has stood in line
        self._begin_with = 0  # the lane that goes on first

    @property
    def flows(self) -> Flows:
        return self.session.flows

    @property
    def room(self) -> int:
        """Bytes that the session's window takes."""
        return self.session.outgoing.room

    def bind(self, link: Link | None, onward: Onward | None) -> None:
        """Use this link and label from now on."""
        self.link = link if onward is not None else None
        self._label = onward.label if onward is not None else 0

    def ready(self, stream: Stream) -> bool:
        """Whether a frame of `stream` may be sent now.

        Nobody passes those who stand in line, and a turn is one frame while others wait: else
        streams whose sockets hold more would get more.
        """
        in_turn, self._in_turn = self._in_turn, False
        link, outgoing, lane = self.link, self.session.outgoing, stream.lane
        return (
            link is not None
            and self.session.up
            and outgoing.room > 0
            and (in_turn or not self._waiting[lane])
            and not outgoing.lanes[lane].waiting
            and not (lane and link.full(self._label, lane))
        )

    def park(self, waiting: Waiting, stream: Stream) -> None:
        self._waiting[stream.lane].append(waiting)

    def resume(self) -> None:
        """Send what waits, as far as the link takes it; then those who waited, each in its turn."""
        if self.link is None or not self.session.up:
            return
        self.flush()
        self._begin_with += 1  # or the first lane would have the most of what an ACK frees
        data = (1 + (number + self._begin_with) % DATA_LANES for number in range(DATA_LANES))
        self._go_on(self.link, [CONTROL_LANE, *data])

    def resume_on(self, connection: int) -> None:
        """As `resume`, for what travels on this connection of the link."""
        link, label = self.link, self._label
        if link is not None and self.session.up:
            lanes = range(1, LANES)
            self._go_on(
                link, [lane for lane in lanes if link.connection(label, lane) == connection]
            )

    def _go_on(self, link: Link, lanes: list[int]) -> None:
        """Send what waits in these lanes, then let those in line send, lane by lane in turn."""
        open_lanes = [lane for lane in lanes if self._drain(lane)]
        for _ in range(ROUNDS):
            if not open_lanes:
                return
            open_lanes = [lane for lane in open_lanes if self._next_turn(link, lane)]

    def _next_turn(self, link: Link, lane: int) -> bool:
        """Let the first in line send; False when nobody waits, or all must."""
        waiting = self._waiting[lane]
        if not waiting or self.session.outgoing.room <= 0 or self._full(link, lane):
            return False
        self._in_turn = True
        waiting.popleft().unpark()
        self._in_turn = False
        return True

    def flush(self) -> None:
        """Send the control records that the streams have left."""
        outbox = self.session.flows.outbox
        if self.session.up:
            while outbox:
                lane, record = outbox.popleft()
                self._send(lane, record)

    def send_data(self, stream: Stream, size: int) -> None:
        """Send the `size` bytes that stand in the buffer."""
        wire.RECORD.pack_into(_BUFFER, 0, Kind.DATA, 0, 0, stream.number)
        self._send(stream.lane, _BUFFER[: _BODY + size])
        self.session.flows.sent(stream, size)

    def _send(self, lane: int, record: bytes | memoryview) -> None:
        kept = self.session.seal(lane, record, self._clock())
        waiting = self.session.outgoing.lanes[lane].waiting
        link = self.link
        if waiting or link is None or self._full(link, lane):
            waiting.append(kept)
        else:
            self._put(link, lane, kept)

    def _drain(self, lane: int) -> bool:
        """Send what waits in `lane`; whether all of it went."""
        outgoing, link = self.session.outgoing, self.link
        while link is not None and not self._full(link, lane):
            kept = outgoing.take_waiting(lane)
            if kept is None:
                return True
            self._put(link, lane, kept)
        return False

    def _full(self, link: Link, lane: int) -> bool:
        """Whether data must wait; what is urgent goes to the link's control connection at once."""
        return lane > 0 and link.full(self._label, lane)

    def _put(self, link: Link, lane: int, kept: Kept) -> None:
        link.send(
            HEAD.pack(FIRST, lane, kept.epoch, TTL, self._label, kept.counter),
            kept.data,
        )
