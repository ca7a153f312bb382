"""A token bucket: so many bytes a second, and a burst. No clock: `now` in seconds of any."""

from typing import Final

BURST: Final = 0.25  # seconds of the rate that may go at once
LEAST: Final = 65_536  # bytes of a burst, at least: one full datagram always fits


class Bucket:
    """Bytes that may go now. A rate of 0 lets everything pass."""

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._burst = max(rate * BURST, LEAST)
        self._tokens = float(self._burst)
        self._then = now

    def take(self, size: int, now: float) -> bool:
        """Whether so many bytes may go; they are taken if so."""
        if not self._rate:
            return True
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._then) * self._rate)
        self._then = now
        if size > self._tokens:
            return False
        self._tokens -= size
        return True
