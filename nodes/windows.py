"""How much streams may have unread at this end: how a window grows, and what bounds all of them.

A window starts at 64 KiB, becomes 1 MiB once the stream has carried a whole one, and then twice what the
reader takes in a round trip, up to 16 MiB: so one stream fills a long fast way, and a slow reader holds
little. Pure: the clock and the round trip are passed in.
"""

from __future__ import annotations

from typing import Final, Protocol

from nodes.wire import FIRST_WINDOW, MAX_WINDOW, STREAM_WINDOW

GROWN: Final = 512 << 20  # bytes beyond the first window, of all streams of a node
EARLY: Final = 16 << 20  # bytes of first data that no app has taken yet, of a node
UNANSWERED: Final = 8192  # streams that no app has answered yet, of a node
SHORTEST: Final = 0.005  # s to measure a reader for, at least


class Windowed(Protocol):
    """What of a stream counts here."""

    window: int
    received: int
    measured: int  # bytes received when its reader was measured last
    measured_at: float


class Budget:
    """So much of something for all streams of a node."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, amount: int = 1) -> bool:
        """Whether there was so much left; then it is taken."""
        if amount > self._left:
            return False
        self._left -= amount
        return True

    def give_back(self, amount: int = 1) -> None:
        self._left += amount


class Windows:
    """What a node has for the windows of its streams, and for those that nobody has answered."""

    def __init__(
        self, grown: int = GROWN, early: int = EARLY, unanswered: int = UNANSWERED
    ) -> None:
        self._grown = Budget(grown)
        self._early = Budget(early)
        self._unanswered = Budget(unanswered)

    def admit(self, early: int) -> bool:
        """Whether one more stream may wait for an app here, with so many bytes of first data."""
        if not self._early.take(early):
            return False
        if not self._unanswered.take():
            self._early.give_back(early)
            return False
        return True

    def answered(self, early: int) -> None:
        """A stream that was admitted waits no more."""
        self._early.give_back(early)
        self._unanswered.give_back()

    def grow(self, stream: Windowed, now: float, round_trip: float) -> int:
        """Enlarge the window of a stream whose reader took bytes; returns by how much."""
        window = stream.window
        if window < STREAM_WINDOW:
            wanted = STREAM_WINDOW if stream.received >= window else window
        elif window < MAX_WINDOW:
            elapsed = now - stream.measured_at
            if elapsed < max(round_trip, SHORTEST):
                return 0
            taken = stream.received - stream.measured
            stream.measured, stream.measured_at = stream.received, now
            # What was taken while nobody wanted to send says nothing; then it only is too small.
            wanted = min(int(2 * taken * round_trip / elapsed), MAX_WINDOW)
        else:
            return 0
        more = wanted - window
        if more <= 0 or not self._grown.take(more):
            return 0
        stream.window = wanted
        return more

    def over(self, stream: Windowed) -> None:
        """A stream ended: what its window had grown by is free."""
        self._grown.give_back(stream.window - FIRST_WINDOW)
