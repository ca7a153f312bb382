"""What a link is like, out of single measurements. Times in seconds, rates in bytes a second."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

BUSY: Final = 16 * 1024  # bytes acknowledged in an interval, below which a rate says nothing
RECENT: Final = 8  # round trips of which the shortest counts
_OUTSTANDING: Final = 8  # PINGs that may still be answered


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """What the kernel knows of a connection. Times in seconds, totals since it began."""

    rtt: float
    rttvar: float
    retransmits: int  # segments
    acked: int  # bytes
    unsent: int  # bytes that wait in the kernel
    rate: int  # bytes a second, as last delivered
    app_limited: bool  # `rate` was measured while there was too little to send


class RoundTrip:
    """How long a link is there and back: the shortest round trip of late.

    What it takes more is a queue, a busy node or a machine that starts, of which smoothing would keep a
    part for long. PINGs carry the time at which they were sent, in microseconds.
    """

    def __init__(self) -> None:
        self.variation = 0.0  # smoothed as in RFC 6298
        self._smoothed = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._asked: deque[int] = deque(maxlen=_OUTSTANDING)

    @property
    def shortest(self) -> float | None:
        return min(self._recent, default=None)

    def ask(self, now: float) -> int:
        """The counter of a PING that goes out now."""
        counter = int(now * 1e6)
        self._asked.append(counter)
        return counter

    def answered(self, counter: int, now: float) -> None:
        """A PONG came; one that was not asked for is ignored."""
        if counter not in self._asked:
            return
        self._asked.remove(counter)
        sample = max(0.0, now - counter / 1e6)
        if self._recent:
            self.variation += (abs(sample - self._smoothed) - self.variation) / 4
            self._smoothed += (sample - self._smoothed) / 8
        else:
            self._smoothed, self.variation = sample, sample / 2
        self._recent.append(sample)


class Throughput:
    """How much a link carries, from what the kernel says of its connections."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self.retransmits = 0.0  # segments a second
        self.unsent = 0
        self._acked: dict[int, int] = {}
        self._retransmitted: dict[int, int] = {}

    def sample(self, infos: Iterable[tuple[int, TcpInfo | None]], seconds: float) -> None:
        """Take in the figures of the connections, by their numbers, `seconds` after the last."""
        carried, again, unsent = 0.0, 0, 0
        limited = True  # by what there was to send
        for number, info in infos:
            if info is None:
                continue
            unsent += info.unsent
            again += info.retransmits - self._retransmitted.get(number, 0)
            self._retransmitted[number] = info.retransmits
            if info.acked - self._acked.get(number, 0) >= BUSY:
                carried += info.rate
                limited = limited and info.app_limited
            self._acked[number] = info.acked
        self.unsent = unsent
        self.retransmits += (again / max(seconds, 1e-3) - self.retransmits) / 4
        if not carried:
            return
        if self.rate is None or carried > self.rate:
            self.rate = carried  # it can carry that much
        elif not limited:
            self.rate += (carried - self.rate) / 4
