"""A token bucket: so many bytes a second, and a burst. No clock: `now` in seconds of any."""

from typing import Final

BURST: Final = 0.25  # seconds of the rate that may go at once
LEAST: Final = 65_536  # bytes of a burst, at least: one full datagram always fits


class Bucket:
    """Bytes that may go now. A rate of 0 lets everything pass."""

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._burst = max(rate * BURST, LEAST)
        self._tokens = float(self._burst)  # below 0: what was spent before it was there
        self._then = now

    def take(self, size: int, now: float) -> bool:
        """Whether so many bytes may go; they are taken if so."""
        if not self.rate:
            return True
        self._fill(now)
        if size > self._tokens:
            return False
        self._tokens -= size
        return True

    def spend(self, size: int, now: float) -> float:
        """Take so many bytes, which are here already; returns the seconds after which they may go."""
        if not self.rate:
            return 0.0
        self._fill(now)
        self._tokens -= size
        return max(0.0, -self._tokens / self.rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._then) * self.rate)
        self._then = now
