"""What resolvers answered, for as long as they said: a bounded cache, `now` in seconds of any clock."""

from dataclasses import dataclass
from typing import Final, Literal

from apps.egress.hostnames import Address

MAX_ENTRIES: Final = 4096
LONGEST: Final = 86_400.0  # seconds; a longer life is cut (RFC 8767 section 4 allows a week)
LONGEST_NEGATIVE: Final = 10_800.0  # seconds (RFC 2308 section 5)
FAILURE: Final = 5.0  # seconds that a failure is believed (RFC 9520 section 3.2: at least one)

Family = Literal["A", "AAAA"]


@dataclass(frozen=True)
class Outcome:
    """How a question was answered: addresses, or why there are none."""

    addresses: tuple[Address, ...]
    reason: str = ""
    silent: bool = False  # no server answered in time: not the name's fault


class Cache:
    """Outcomes by name and family; the least recently used go first when it is full."""

    def __init__(self, size: int = MAX_ENTRIES) -> None:
        self._size = size
        self._entries: dict[tuple[str, Family], tuple[Outcome, float]] = {}
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str, family: Family, now: float) -> Outcome | None:
        """What is known and not yet over."""
        entry = self._entries.pop((name, family), None)
        if entry is None or entry[1] <= now:
            self.misses += 1
            return None
        self._entries[name, family] = entry  # to the end: used last
        self.hits += 1
        return entry[0]

    def put(self, name: str, family: Family, outcome: Outcome, ttl: float, now: float) -> None:
        """Keep an outcome for `ttl` seconds; 0 is not kept."""
        life = min(ttl, LONGEST if outcome.addresses else LONGEST_NEGATIVE)
        self._entries.pop((name, family), None)
        if life <= 0:
            return
        while len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[name, family] = (outcome, now + life)

    def clear(self) -> None:
        self._entries.clear()
