"""One session's way out: records are sealed and sent here, and those who wait to send stand in line.

Data goes out from one buffer of the whole node, its first 8 bytes being the record's header: a
pump reads into `SPACE` and calls `send_data` at once; sealing is the only copy. What a link does not
take at once stays with the session, in its order, and not with the link.

Whose turn it is `nodes.turns` says.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from nodes import wire
from nodes.acks import LANES
from nodes.session import FIRST
from nodes.turns import Turns, Waiting
from nodes.wire import DATAGRAM_LANE, HEAD, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nodes.delivery import Kept
    from nodes.flows import Flows, Stream
    from nodes.links.base import Link
    from nodes.session import Session
    from nodes.ways import Onward

__all__ = ["SPACE", "TTL", "Lane", "Sender", "Waiting"]

_BODY: Final = wire.RECORD.size
_BUFFER: Final = memoryview(bytearray(_BODY + wire.MAX_DATA))  # used and left within one call
SPACE: Final = _BUFFER[_BODY:]
MAX_HELD: Final = 32  # datagrams that wait for keys and a way
TTL: Final = 64  # links that a frame may pass

SLOTS: Final = 10  # a second; of what a stream sent, half is forgotten in each
LIGHT: Final = 16 * 1024  # bytes lately, up to which a stream counts as interactive
RESERVE: Final = 256 * 1024  # bytes beyond the session's window, for those
MEASURE_FOR: Final = 0.05  # s
FRAME_TIME: Final = 0.005  # s that one frame may take of the way
MIN_FRAME: Final = 4096  # bytes


class Sender(Protocol):
    """Somebody who sends in one lane, as the turns see it; streams are such."""

    lane: int
    lately: int  # bytes sent, of which half is forgotten in each `slot`
    slot: int


class Lane:
    """One session's way out: the link, the label to use on it, and who waits to send."""

    def __init__(self, peer: str, session: Session, clock: Callable[[], float]) -> None:
        self.peer = peer
        self.session = session
        self.link: Link | None = None  # None while there is no way
        self.alarm = inf  # when its session is called at the latest
        self.frame = wire.MAX_DATA  # bytes of a stream in one frame, at most
        self._label = 0
        self._clock = clock
        self._held: deque[bytes] = deque()  # datagrams, until there are keys and a way
        self._turns = Turns()
        self._serving = False
        self._in_turn = False  # who asks now has stood in line
        self._measured_at = 0.0
        self._measured = 0  # bytes acknowledged at that time
        self._was_crowded = False  # since then: somebody had to wait

    @property
    def flows(self) -> Flows:
        return self.session.flows

    @property
    def room(self) -> int:
        """Bytes that the session's window takes."""
        return self.session.outgoing.room

    @property
    def now(self) -> float:
        return self._clock()

    def crowded(self, stream: Sender) -> bool:
        """Whether others wait to send in its lane."""
        return self._turns.wait(stream.lane)

    def bind(self, link: Link | None, onward: Onward | None) -> None:
        """Use this link and label from now on."""
        self.link = link if onward is not None else None
        self._label = onward.label if onward is not None else 0

    def ready(self, stream: Sender) -> bool:
        """Whether a frame of `stream` may be sent now.

        Nobody passes those who stand in line, but who sends little; and a turn is one frame while
        others wait: else streams whose sockets hold more would get more.
        """
        in_turn, self._in_turn = self._in_turn, False
        if not self._is_open(stream.lane):
            return False
        room = self.session.outgoing.room
        if room > 0 and (in_turn or not self._turns.wait(stream.lane)):
            return True
        return room > -RESERVE and self._is_light(stream)

    def park(self, waiting: Waiting, stream: Sender) -> None:
        """Call `waiting.unpark()` when it may send; its turn comes after those who wait already."""
        self._was_crowded = True
        self.session.outgoing.capacity.press()
        self._turns.add(waiting, stream.lane, urgent=self._is_light(stream))

    def resume(self) -> None:
        """Send what waits, as far as the link takes it; then those who waited, each in its turn."""
        if self.link is None or not self.session.up or self._serving:
            return
        self.flush()
        while self._held:
            self.session.tell(self._held.popleft())
        self._measure()
        self._go_on(range(LANES))

    def resume_on(self, connection: int) -> None:
        """As `resume`, for what travels on this connection of the link."""
        link = self.link
        if link is not None and self.session.up and not self._serving:
            on = [n for n in range(1, LANES) if link.connection(self._label, n) == connection]
            self._go_on(on)

    def _go_on(self, lanes: Iterable[int]) -> None:
        open_lanes = [lane for lane in lanes if self._drain(lane)]
        self._serving = True
        try:
            while (room := self.session.outgoing.room) > -RESERVE:
                waiting = self._turns.next(open_lanes, only_urgent=room <= 0)
                if waiting is None:
                    return
                self._in_turn = True
                waiting.unpark()
                self._in_turn = False
                open_lanes = [lane for lane in open_lanes if self._is_open(lane)]
        finally:
            self._serving = False

    def flush(self) -> None:
        """Send the control records that the streams have left."""
        outbox = self.session.flows.outbox
        if self.session.up:
            while outbox:
                lane, record = outbox.popleft()
                self._send(lane, record)

    def send_datagram(self, record: bytes) -> bool:
        """Send a record that may be lost; False when there is no room and it was dropped."""
        if self.link is None or not self.session.up:
            if len(self._held) >= MAX_HELD:
                return False
            self._held.append(record)
        elif self.link.full(self._label, DATAGRAM_LANE):
            return False
        else:
            self.session.tell(record)
        return True

    def send_data(self, stream: Stream, size: int) -> None:
        """Send the `size` bytes that stand in the buffer."""
        wire.RECORD.pack_into(_BUFFER, 0, Kind.DATA, 0, 0, stream.number)
        now = self._send(stream.lane, _BUFFER[: _BODY + size])
        self.session.flows.sent(stream, size)
        _age(stream, now)
        stream.lately += size

    def send_record(self, number: int, record: bytes | memoryview) -> None:
        """Send a record of packets in lane `number`, when `ready` said so."""
        self._send(number, record)

    def took(self, stream: Stream, size: int) -> None:
        """The local reader of `stream` took `size` bytes."""
        session = self.session
        session.flows.took(stream, size, self._clock(), session.round_trip or 0.0)

    def _is_light(self, stream: Sender) -> bool:
        """Whether it sent little lately: somebody types, or asks and waits for answers."""
        _age(stream, self._clock())
        return stream.lately <= LIGHT

    def _measure(self) -> None:
        """Choose the size of frames by how fast the way proves to be while others wait for it."""
        now = self._clock()
        elapsed = now - self._measured_at
        if elapsed < MEASURE_FOR:
            return
        acknowledged = self.session.outgoing.acknowledged_bytes
        moved = acknowledged - self._measured
        if self._was_crowded and moved > 0 and elapsed < 1:
            self.frame = min(max(int(moved / elapsed * FRAME_TIME), MIN_FRAME), wire.MAX_DATA)
        self._measured, self._measured_at, self._was_crowded = (
            acknowledged,
            now,
            self._turns.count > 0,
        )

    def _send(self, lane: int, record: bytes | memoryview) -> float:
        """Returns the time."""
        now = self._clock()
        kept = self.session.seal(lane, record, now)
        waiting = self.session.outgoing.lanes[lane].waiting
        link = self.link
        if waiting or link is None or self._full(link, lane):
            waiting.append(kept)
        else:
            self._put(link, lane, kept)
        return now

    def _drain(self, lane: int) -> bool:
        """Send what waits in `lane`; whether all of it went."""
        outgoing, link = self.session.outgoing, self.link
        while link is not None and not self._full(link, lane):
            kept = outgoing.take_waiting(lane)
            if kept is None:
                return True
            self._put(link, lane, kept)
        return False

    def _is_open(self, lane: int) -> bool:
        """Whether what is sent in `lane` goes out at once."""
        link, session = self.link, self.session
        return (
            link is not None
            and session.up
            and not session.outgoing.lanes[lane].waiting
            and not self._full(link, lane)
        )

    def _full(self, link: Link, lane: int) -> bool:
        """Whether data must wait; what is urgent goes to the link's control connection at once."""
        return lane > 0 and link.full(self._label, lane)

    def _put(self, link: Link, lane: int, kept: Kept) -> None:
        link.send(
            HEAD.pack(FIRST, lane, kept.epoch, TTL, self._label, kept.counter),
            kept.data,
        )


def _age(stream: Sender, now: float) -> None:
    """Forget half of what a stream sent for each slot of time that has passed."""
    slot = int(now * SLOTS)
    if slot != stream.slot:
        stream.lately >>= max(min(slot - stream.slot, 40), 0)
        stream.slot = slot
