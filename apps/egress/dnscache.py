"""What name servers answered, for as long as it may be believed; `now` is in seconds of any clock."""

from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

MAX_ENTRIES: Final = 4096
LONGEST: Final = 86_400.0  # seconds; a longer life is cut (RFC 8767 section 4 allows a week)
LONGEST_NEGATIVE: Final = 10_800.0  # seconds (RFC 2308 section 5)
FAILURE: Final = 5.0  # seconds that a failure is believed (RFC 9520 section 3.2: at least one)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def life(ttl: float, *, positive: bool) -> float:
    """Seconds that an answer is believed which says `ttl`; `positive`: it has what was asked for."""
    return min(ttl, LONGEST if positive else LONGEST_NEGATIVE)


class Kept(NamedTuple, Generic[V]):
    """What is known, and for how many seconds it has been."""

    value: V
    age: float


class _Entry(NamedTuple, Generic[V]):
    value: V
    since: float
    until: float


class Cache(Generic[K, V]):
    """Answers by question; the least recently used go first when it is full."""

    def __init__(self, size: int = MAX_ENTRIES) -> None:
        self._size = size
        self._entries: dict[K, _Entry[V]] = {}
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now: float) -> Kept[V] | None:
        """What is known and not yet over."""
        entry = self._entries.pop(key, None)
        if entry is None or entry.until <= now:
            self.misses += 1
            return None
        self._entries[key] = entry  # to the end: used last
        self.hits += 1
        return Kept(entry.value, now - entry.since)

    def put(self, key: K, value: V, seconds: float, now: float) -> None:
        """Keep a value so long; 0 is not kept, and takes what was there."""
        self._entries.pop(key, None)
        if seconds <= 0:
            return
        while len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = _Entry(value, now, now + seconds)
