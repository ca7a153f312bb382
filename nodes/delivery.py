"""The ordered lanes of a session: what was sealed and not acknowledged, and what is due to come.

The sender keeps every sealed frame until the far end says that it came, and sends the same bytes again
when a route was lost; the receiver takes each lane in order, once. So routes may come and go under a
session and no byte of it is lost, doubled or swapped. What is kept is bounded by a window, which is the
flow control of the mesh. Pure: no socket, no clock. Specified in docs/protocol/mesh.md, section 4.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from nodes.acks import LANES
from nodes.capacity import Capacity
from nodes.sealing import TAG
from nodes.wire import MAX_SESSION_WINDOW, WireError

if TYPE_CHECKING:
    from nodes.sealing import Seal

MAX_FRAMES: Final = 16_384  # kept for one session: small ones cost more than their bytes
LEAST_ACK: Final = 16 * 1024  # bytes after which they are acknowledged at once, on a slow way
MOST_ACK: Final = 512 * 1024  # the same, on a fast one
ACK_EVERY: Final = 0.005  # s between two acknowledgements, as often as bytes ask for them
ACK_AFTER: Final = 0.025  # s after which they are at the latest
FIRST_PATIENCE: Final = 1.5  # s without an acknowledgement until frames are sent again, at least
LAST_PATIENCE: Final = 12.0  # s
OVERTAKEN: Final = 0.75  # s
GAPS: Final = 4  # that the far end had, so near to each other:
GAPS_WITHIN: Final = 20.0  # s
_POOLED: Final = 65_560  # bytes: the largest sealed record (a full one is worth keeping its buffer)
_MAX_POOL: Final = 256  # buffers, 16 MiB, of all sessions of a node


class Kept(NamedTuple):
    """A sealed frame; `data` is never changed while anybody may still send it."""

    counter: int
    epoch: int
    data: bytearray


class Pool:
    """Buffers of the largest size, used again: new ones cost page faults at every frame."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        if size == _POOLED and self._free:
            return self._free.pop()
        return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        if len(buffer) == _POOLED and len(self._free) < _MAX_POOL:
            self._free.append(buffer)


class _SendingLane:
    """One lane: what was sealed and not acknowledged, and which part of it waits to be sent."""

    __slots__ = ("moved", "next", "patience", "resent", "rounds", "since", "unacked", "waiting")

    def __init__(self) -> None:
        self.next = 1  # counter of the next frame
        self.unacked: deque[Kept] = deque()
        self.waiting: deque[Kept] = deque()  # a tail of `unacked`, or older than it
        self.moved = 0.0  # when it last moved: frames went, or an acknowledgement came
        self.since = 0.0  # the same, but for frames that went again on the same way
        self.resent = float("-inf")
        self.patience = FIRST_PATIENCE
        self.rounds = 0  # times sent again without an acknowledgement


class Outgoing:
    """All lanes of one session, the sender's side."""

    def __init__(self, pool: Pool | None = None) -> None:
        self.lanes = tuple(_SendingLane() for _ in range(LANES))
        self.capacity = Capacity()
        self.kept = 0  # bytes
        self.acknowledged_bytes = 0  # all that ever were
        self.frames = 0  # kept
        self.resent = 0  # frames, in all
        self._pool = pool or Pool()
        self._switched = float("-inf")
        self._gaps: deque[float] = deque(maxlen=GAPS)  # when they were filled

    @property
    def window(self) -> int:
        return self.capacity.window

    @property
    def room(self) -> int:
        """Bytes that may be sealed now; control records do not ask."""
        return self.capacity.window - self.kept if self.frames < MAX_FRAMES else 0

    @property
    def overrun(self) -> bool:
        """The far end makes us answer and acknowledges nothing."""
        return self.frames > 2 * MAX_FRAMES or self.kept > 2 * MAX_SESSION_WINDOW + (1 << 20)

    def seal(
        self, seal: Seal, first: int, epoch: int, lane: int, plain: bytes | memoryview, now: float
    ) -> Kept:
        """Seal a record as the next frame of `lane` and keep it; the caller sends it."""
        state = self.lanes[lane]
        counter = state.next
        size = len(plain) + TAG
        data = self._pool.take(size)
        seal.seal(first, lane, epoch, counter, plain, data)
        state.next = counter + 1
        if not state.unacked:
            state.moved = state.since = now
            if not self.frames:
                self.capacity.woke(now)
        kept = Kept(counter, epoch, data)
        state.unacked.append(kept)
        self.kept += size
        self.frames += 1
        return kept

    def acknowledged(self, expected: tuple[int, ...], now: float) -> bool:
        """The far end's next counters; whether it is news. Raises WireError for what was not sent."""
        kept = self.kept
        for state, due in zip(self.lanes, expected, strict=True):
            if due > state.next:
                raise WireError(f"frame {due - 1} acknowledged, of {state.next - 1} sent")
            unacked = state.unacked
            while unacked and unacked[0].counter < due:
                data = unacked.popleft().data
                self.kept -= len(data)
                self.acknowledged_bytes += len(data)
                self.frames -= 1
                self._pool.give_back(data)
                state.moved = state.since = now
                state.patience = FIRST_PATIENCE
                state.rounds = 0
            waiting = state.waiting
            while waiting and waiting[0].counter < due:
                waiting.popleft()
        if self.kept == kept:
            return False
        self.capacity.acknowledged(kept - self.kept, kept, now)
        return True

    def again(self, lane: int, now: float) -> None:
        """Let everything of `lane` that is not acknowledged wait to be sent once more."""
        state = self.lanes[lane]
        self.resent += len(state.unacked) - len(state.waiting)
        state.waiting = deque(state.unacked)
        state.resent = state.moved = now

    def switched(self, now: float) -> None:
        """Another way is used, and what is on the old one may be lost."""
        self.capacity.switched()
        self._switched = now
        self._gaps.clear()
        for number, state in enumerate(self.lanes):
            self.again(number, now)
            state.since = now

    def fill(self, missing: int, now: float, pause: float) -> bool:
        """Send lanes again in which the far end has gaps, but not twice within `pause` s."""
        again = False
        for lane, state in enumerate(self.lanes):
            if missing >> lane & 1 and now - state.resent > pause:
                self.again(lane, now)
                again = True
        if again and now - self._switched > FIRST_PATIENCE:
            self._gaps.append(now)
        return again

    def leaks(self, now: float) -> bool:
        """Whether the way loses frames again and again, without a switch that explains it."""
        return len(self._gaps) == GAPS and now - self._gaps[0] < GAPS_WITHIN

    def take_waiting(self, lane: int) -> Kept | None:
        """The next frame of `lane` that waits to be sent."""
        waiting = self.lanes[lane].waiting
        return waiting.popleft() if waiting else None

    def overdue(self, now: float, round_trip: float) -> list[int]:
        """Lanes whose frames have all gone out and of which nothing was acknowledged for too long."""
        overdue = []
        for number, state in enumerate(self.lanes):
            if state.waiting:
                state.moved = state.since = now  # the time is counted from when all was sent
            elif state.unacked and now - state.moved > max(state.patience, 4 * round_trip):
                overdue.append(number)
        return overdue

    def overtaken(self, now: float, round_trip: float, proved: float) -> bool:
        """Whether what was told long after frames that have not arrived, at `proved`, has.

        Then the way is there, but not for them: somebody on it swallows what must arrive.
        """
        patience = max(FIRST_PATIENCE, 4 * round_trip)
        return any(
            now - state.since > patience and proved - state.since > OVERTAKEN
            for state in self.lanes
            if state.unacked and not state.waiting
        )

    def repeat(self, lane: int, now: float) -> int:
        """Send `lane` again after it was overdue; returns how many times in a row that was."""
        state = self.lanes[lane]
        self.again(lane, now)
        state.patience = min(state.patience * 2, LAST_PATIENCE)
        state.rounds += 1
        return state.rounds


class Incoming:
    """All lanes of one session, the receiver's side: which counter is next, and what to tell."""

    __slots__ = (
        "_asked",
        "_told_at",
        "ack_bytes",
        "ack_due",
        "arrived",
        "duplicates",
        "expected",
        "gaps",
        "missing",
    )

    def __init__(self) -> None:
        self.expected = [1] * LANES
        self.ack_due = float("inf")  # when the peer must be told
        self.arrived = 0  # bytes that came since it was
        self.ack_bytes = LEAST_ACK  # after which it must be at once
        self.missing = 0  # bit n: lane n has a gap that the far end must fill
        self.duplicates = 0
        self.gaps = 0
        self._asked = float("-inf")  # when a gap was told of last
        self._told_at = 0.0

    def is_new(self, lane: int, counter: int, now: float) -> bool:
        """Whether a frame is worth opening."""
        if counter >= self.expected[lane]:
            return True
        self.duplicates += 1  # the peer lacks an acknowledgement
        self.ack_due = min(self.ack_due, now + ACK_AFTER)
        return False

    def in_turn(self, lane: int, counter: int, size: int, now: float, pause: float) -> bool:
        """A frame opened: whether it is the next. `pause`: s between two complaints of gaps."""
        if counter != self.expected[lane]:
            self.gaps += 1
            self.missing |= 1 << lane
            self.ack_due = min(self.ack_due, max(now, self._asked + pause))
            if self.ack_due <= now:
                self._asked = now
            return False
        self.expected[lane] = counter + 1
        self.arrived += size
        due = now if self.arrived >= self.ack_bytes else now + ACK_AFTER
        self.ack_due = min(self.ack_due, due)
        return True

    def told(self, now: float) -> None:
        """An acknowledgement goes out.

        The next is due after so many bytes that they come neither too often, for each costs as much as
        a frame, nor too seldom: the far end sends as it hears, and what it sends at once stands in queues.
        """
        elapsed = now - self._told_at
        if elapsed > 2 * ACK_EVERY:
            self.ack_bytes = max(self.ack_bytes // 2, LEAST_ACK)
        elif elapsed < ACK_EVERY and self.arrived >= self.ack_bytes:
            self.ack_bytes = min(self.ack_bytes * 2, MOST_ACK)
        self._told_at = now
        self.arrived = self.missing = 0
