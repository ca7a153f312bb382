"""Datagrams have no connections: who talked lately, bounded, the longest silent goes first."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flows(Generic[K, V]):
    """What belongs to each talker. `now` is in seconds of any clock that only goes forward."""

    def __init__(self, limit: int, idle: float) -> None:
        self._limit = limit
        self._idle = idle
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
        gone = []
        if len(self._flows) >= self._limit:
            gone.append(self._flows.popitem(last=False)[1][0])
        self._flows[key] = value, now
        return gone

    def expire(self, now: float) -> list[V]:
        """Those that have been silent for too long go."""
        gone = []
        while self._flows:
            key, (value, last) = next(iter(self._flows.items()))
            if last + self._idle > now:
                break
            del self._flows[key]
            gone.append(value)
        return gone

    def clear(self) -> list[V]:
        gone = [value for value, _ in self._flows.values()]
        self._flows.clear()
        return gone
