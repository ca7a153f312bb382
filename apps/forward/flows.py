"""Datagrams have no connections: who talked lately, bounded, the longest silent goes first.

When there are too many, one of whoever has the most goes: nobody can drive the others out.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flows(Generic[K, V]):
    """What belongs to each talker. `now` is in seconds of any clock that only goes forward.

    `whose` tells talkers together that are of one.
    """

    def __init__(
        self, limit: int, idle: float, whose: Callable[[K], Hashable] = lambda _key: None
    ) -> None:
        self._limit = limit
        self._idle = idle
        self._whose = whose
        self._counts: Counter[Hashable] = Counter()
        self._flows: OrderedDict[K, tuple[V, float]] = OrderedDict()  # longest silent first

    def __len__(self) -> int:
        return len(self._flows)

    def get(self, key: K, now: float) -> V | None:
        """What belongs to `key`, which talks just now."""
        found = self._flows.pop(key, None)
        if found is None:
            return None
        self._flows[key] = found[0], now
        return found[0]

    def add(self, key: K, value: V, now: float) -> list[V]:
        """A new one; give back what had to go for it."""
        whose = self._whose(key)
        gone = []
        if len(self._flows) >= self._limit:
            self._counts[whose] += 1  # who comes counts, too: else the last of others would go
            most = max(self._counts.values())
            old = next(k for k in self._flows if self._counts[self._whose(k)] == most)
            self._counts[whose] -= 1
            gone.append(self._drop(old))
        self._flows[key] = value, now
        self._counts[whose] += 1
        return gone

    def expire(self, now: float) -> list[V]:
        """Those that have been silent for too long go."""
        gone = []
        while self._flows:
            key, (_, last) = next(iter(self._flows.items()))
            if last + self._idle > now:
                break
            gone.append(self._drop(key))
        return gone

    def clear(self) -> list[V]:
        gone = [value for value, _ in self._flows.values()]
        self._flows.clear()
        self._counts.clear()
        return gone

    def _drop(self, key: K) -> V:
        whose = self._whose(key)
        self._counts[whose] -= 1
        if not self._counts[whose]:
            del self._counts[whose]
        return self._flows.pop(key)[0]
