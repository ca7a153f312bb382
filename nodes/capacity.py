"""What the way of a session carries, learned from acknowledgements, and how much may be under way on it.

What is sent beyond what a way holds waits in queues, in kernels and in relays, and holds up all that comes
behind: whoever types, and everybody else on the same links. So the window of a session is what the way
moves in its shortest round trip, a tenth more, what the far end has got and not acknowledged yet, and some
milliseconds for the nodes; no more. It begins narrow and doubles each round as long as more arrives for it
(rate as a maximum, round trip as a minimum: as BBR, draft-cardwell-iccrg-bbr-congestion-control).

Each session looks now and then how long the way is without its own queue: it uses a small part of the
window until a time told meanwhile has come back. That may be 0.1 s more than the shortest ever, for nodes
and wires take longer when they are busy, and a window that knew only the best would make the rate fall and
fall; but not more, or sessions that share a way would each take the queue of the others for its length.
Only when the rate has fallen to a quarter, with a window near its least, is a longer one believed. Pure.
Specified in docs/protocol/mesh.md, section 5.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from nodes.wire import MAX_SESSION_WINDOW

FIRST: Final = 128 * 1024  # bytes, until something is known of the way
LEAST: Final = 16 * 1024
ROUND: Final = 0.05  # s that a rate is measured over, at least
FIRST_ROUND: Final = 0.01  # s, while the window doubles
ROUNDS: Final = 10  # of which the fastest counts
FULL: Final = 3  # rounds without a quarter more, then the way is full
MORE: Final = 1.25
BEYOND: Final = 1.1  # of what the way holds
STANDING: Final = 0.006  # s of the rate that may wait in queues and nodes, so that none runs dry
MAX_STANDING: Final = 3 << 20  # bytes
ACK_TIME: Final = 0.025  # s after which an acknowledgement comes at the latest
MAX_ACKED: Final = 1 << 20  # bytes by one acknowledgement, as far as they count here
REMEMBERED: Final = 10.0  # s until the shortest round trip must be seen again
AS_SHORT: Final = 1.05, 0.001  # factor and s: a round trip that confirms the shortest
FADES: Final = 0.98  # of the best rate, from round to round
NARROW: Final = 0.75  # of the best rate of late: below, the window may be too narrow
LOOK_EVERY: Final = 2.0  # s between looks at how long the way is, at least
LONGER: Final = (
    0.1  # s that it may be longer than it was at its shortest, until the rate has fallen
)
FALLEN: Final = 4  # times less than it was: the way may have become longer
DRAINED: Final = 0.25  # of what the way holds, while the queue is let run dry
CLOCK: Final = 0.001  # s that a time which was told may be off
UNKNOWN: Final = float("inf")


class Capacity:
    """Of the way that a session uses."""

    def __init__(self) -> None:
        self.window = FIRST  # bytes that may be sent and not acknowledged
        self.shortest = UNKNOWN  # s there and back, without queues
        self._length = UNKNOWN  # s: what it is now, without the queue of this session
        self._seen = 0.0  # when that was seen
        self._begin()

    def _begin(self) -> None:
        """Nothing is known of how much the way carries."""
        self._growing = True
        self._fullest = 0.0  # bytes a second: the rate when it last grew by much
        self._full = 0  # rounds since
        self._best = 0.0  # bytes a second: the highest rate of late
        self._rates: deque[float] = deque(maxlen=ROUNDS)
        self._acked = 0  # most bytes by one acknowledgement, of late
        self._wanted = self.window  # to which it widens as acknowledgements come, without a burst
        self._drains = False  # a small part of the window is used
        self._dry = False  # and no more is under way
        self._told = UNKNOWN  # when a time was told since that had taken effect
        self._longer = False  # than it was, the way may have become
        self._looked = 0.0  # when it was made to drain last
        self._restart(0.0)

    @property
    def rate(self) -> float:
        """Bytes a second that the way has carried of late; 0.0 when nothing is known."""
        return max(self._rates, default=0.0)

    def switched(self) -> None:
        """Another way is used, of which nothing is known."""
        self.shortest = self._length = UNKNOWN
        self._begin()

    def woke(self, now: float) -> None:
        """Nothing was under way until now."""
        self._restart(now)

    def press(self) -> None:
        """Somebody had to wait: what arrives now is all that the way carries."""
        self._pressed = True

    def timed(self, sample: float, sent: float, now: float) -> None:
        """A time told at `sent` came back, which took `sample` s on the way."""
        factor, more = AS_SHORT
        if sample * factor + more < self._length < UNKNOWN and not self._growing:
            self._drain(now)  # another session does, or the way is as short again
        if sample <= self._length * factor + more:
            self._seen = now
        self.shortest = min(self.shortest, sample)
        if self._length == UNKNOWN or self._growing:
            self._length = self.shortest
        if self._drains and self._told <= sent + CLOCK:
            self._seen, self._drains, self._dry, self._told = now, False, False, UNKNOWN
            self._length = min(sample, self.shortest + LONGER)
            if self._longer:
                self.shortest = self._length = sample  # of the way itself
                self._begin()
            self._learn()
            self._restart(now)

    def acknowledged(self, size: int, under_way: int, now: float) -> None:
        """`size` bytes of `under_way`, which is what was before, arrived: choose the window."""
        self._moved += size
        self._acked = max(self._acked, min(size, MAX_ACKED))
        self._pressed |= under_way * 4 > self.window * 3
        self.window = min(self._wanted, self.window + size)
        if self._drains:
            self._dry = under_way - size <= self.window
            return
        elapsed = now - self._round_at
        least = FIRST_ROUND if self._growing else ROUND
        if self.shortest < UNKNOWN and elapsed >= max(self.shortest, least):
            self._end_round(self._moved / elapsed, now)
            self._learn()
            self._restart(now)

    def asks(self, now: float) -> bool:
        """Whether a time must be told now, for the queue has run dry."""
        if not (self._dry and self._told == UNKNOWN):
            return False
        self._told = now
        return True

    def _restart(self, now: float) -> None:
        """Begin a round."""
        self._round_at, self._moved, self._pressed = now, 0, False

    def _end_round(self, rate: float, now: float) -> None:
        if not self._pressed and rate < self.rate:
            return  # nobody wanted more
        self._rates.append(rate)
        self._acked -= self._acked >> 2  # forgotten, if no other is as large
        self._best = max(self._best * FADES, rate)
        if not self._growing:
            self._longer = self.rate * FALLEN < self._best and self.window <= 2 * LEAST
            narrow = self._pressed and self.rate < self._best * NARROW
            if self._longer or narrow or (self._pressed and now - self._seen > REMEMBERED):
                self._drain(now)
        elif rate >= self._fullest * MORE:
            self._fullest, self._full = rate, 0
        elif self._pressed:
            self._full += 1
            self._growing = self._full < FULL

    def _drain(self, now: float) -> None:
        """Let the queue of this session run dry, to see the way alone."""
        if not self._drains and now - self._looked > LOOK_EVERY + 2 * self._length:
            self._drains, self._looked = True, now
            self._learn()

    def _learn(self) -> None:
        """Choose the window."""
        rate = self.rate
        if not rate:
            return
        holds = rate * self._length
        acked = min(self._acked, max(rate * ACK_TIME, LEAST), MAX_ACKED)
        wanted = BEYOND * holds + min(rate * STANDING, MAX_STANDING) + acked
        if self._drains:
            wanted = DRAINED * rate * self.shortest
        elif self._growing:
            wanted = max(2 * wanted, FIRST)
        self._wanted = int(min(max(wanted, LEAST), MAX_SESSION_WINDOW))
        if self._growing or self.window > self._wanted:
            self.window = self._wanted
