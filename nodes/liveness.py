"""What the two ends know of each other's being there: times that came back, and how long that took."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from nodes.acks import is_later, micros, since

if TYPE_CHECKING:
    from nodes.acks import Ack

LOST_AFTER: Final = 30.0  # s without proof of the peer, then the streams are cut
RECENT: Final = 8  # round trips that count
GAP_PAUSE: Final = 0.1  # s between requests to send again, and between doing so, at least
DEAD_AFTER: Final = 3.0  # s without proof that what was sent on the way in use has come


class Liveness:
    """Of one session."""

    def __init__(self, now: float) -> None:
        # s from end to end, the shortest of late: what is more is a queue, or a busy node
        self.round_trip: float | None = None
        self.longest = 0.0  # s, of late
        self._trips: deque[tuple[int, float]] = deque(
            maxlen=RECENT
        )  # time told, s until it was back
        self.proved = now  # the peer showed that what was sent then, on some way, came
        self.heard = now  # a frame of the peer's opened
        self._switched = now
        self._echo = 0  # the peer's newest time
        self._echo_at = 0.0  # when it came

    @property
    def pause(self) -> float:
        """Seconds in which what is sent again has come."""
        return max(GAP_PAUSE, self.longest)

    def agreed(self, now: float, *, anew: bool) -> None:
        """A handshake was completed; `anew`: with a peer whose clock may be another."""
        self.proved = self.heard = now
        if anew:
            self._echo = 0

    def switched(self, now: float) -> None:
        """Another way is used: give it time."""
        self._switched = now

    def times(self, now: float) -> tuple[int, int, int]:
        """For an Ack: our time, the peer's newest, and µs since that came."""
        held = int((now - self._echo_at) * 1e6) if self._echo else 0
        return micros(now), self._echo, held

    def told(self, ack: Ack, now: float) -> tuple[float, float] | None:
        """An Ack came: note the peer's time, and measure by our own that came back.

        The s that it took there and back, and when it was told.
        """
        if not self._echo or is_later(ack.stamp, self._echo):
            self._echo, self._echo_at = ack.stamp, now
        if not ack.echo:
            return None
        ago = since(now, ack.echo)
        sample = ago - ack.held / 1e6
        if not 0 <= sample < LOST_AFTER:
            return None
        self.proved = max(self.proved, now - ago)
        if self._trips and self._trips[-1][0] == ack.echo:
            sample = min(sample, self._trips.pop()[1])
        self._trips.append((ack.echo, sample))
        trips = [trip for _, trip in self._trips]
        self.round_trip, self.longest = min(trips), max(trips)
        # What was told before the switch went another way.
        return (sample, now - ago) if now - ago > self._switched else None

    def is_dead(self, now: float) -> bool:
        """Whether the way in use brings nothing there, or nothing back."""
        return now - max(self.proved, self._switched) > DEAD_AFTER + self.longest

    def is_lost(self, now: float) -> bool:
        return now - self.proved > LOST_AFTER
