"""Which exit new connections take: the named ones in their order, or the fastest of those on offer.

Pure: what was measured and what failed is told, `now` is in seconds of any clock that only goes forward. An
exit that failed comes last until it answers again; as long as no exit answers all are tried.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SAMPLES: Final = 3  # the shortest of the last ones counts: longer ones waited for something
ENOUGH_BETTER: Final = 0.75  # of its cost, before the exit in use is left for a faster one
FULL: Final = 0.95  # load from which an exit is a last resort
FULL_FACTOR: Final = 10

USED_EVERY: Final = 5.0  # s between two probes of the exit in use
OTHERS_EVERY: Final = 30.0  # s
FAILED_EVERY: Final = 3.0  # s
MAX_EXITS: Final = 64  # of those on offer


class Exit(NamedTuple):
    """A node, by its name or key, and the port of its socks-server."""

    target: str
    port: int


@dataclass
class _Known:
    load: float = 0.0  # 0 to 1
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))  # s
    failed: bool = False
    due: float = 0.0  # when it is probed next

    @property
    def cost(self) -> float:
        """Seconds; infinite when it was never measured."""
        if not self.samples:
            return float("inf")
        return min(self.samples) * (FULL_FACTOR if self.load >= FULL else 1 + self.load)


class Choice:
    """The exits that are known; `named` is empty when the fastest is wanted."""

    def __init__(self, named: Sequence[Exit] = ()) -> None:
        self.fastest = not named
        self._exits: dict[Exit, _Known] = {each: _Known() for each in named}
        self._used: Exit | None = None

    def __len__(self) -> int:
        return len(self._exits)

    def offered(self, offers: Iterable[tuple[Exit, float]]) -> None:
        """These are on offer, with their loads, and no others."""
        found: dict[Exit, _Known] = {}
        for each, load in list(offers)[:MAX_EXITS]:
            known = found[each] = self._exits.get(each, _Known())
            known.load = load
        self._exits = found

    def answered(self, which: Exit, seconds: float) -> None:
        """It answered a probe after so long."""
        known = self._exits.get(which)
        if known is not None:
            known.samples.append(seconds)
            known.failed = False

    def failed(self, which: Exit, now: float) -> None:
        """It could not be reached."""
        known = self._exits.get(which)
        if known is not None and not known.failed:
            known.failed = True
            known.samples.clear()  # another way may lead there by then
            known.due = now + FAILED_EVERY

    def order(self) -> list[Exit]:
        """All exits, the one to take first."""
        order = list(self._exits)
        if self.fastest:
            order.sort(key=lambda each: self._exits[each].cost)
        order.sort(key=lambda each: self._exits[each].failed)
        if self.fastest and order:
            self._keep_used(order)
        return order

    def due(self, now: float) -> list[Exit]:
        """Those to probe now; a single exit that was named needs no probe."""
        if len(self._exits) < 2 and not self.fastest:
            return []
        order = self.order()
        due = [each for each in order if self._exits[each].due <= now]
        for each in due:
            known = self._exits[each]
            pause = USED_EVERY if each == order[0] else OTHERS_EVERY
            if known.failed or (self.fastest and len(known.samples) < SAMPLES):
                pause = FAILED_EVERY
            known.due = now + pause
        return due

    def _keep_used(self, order: list[Exit]) -> None:
        """Stay with the exit in use unless another one is clearly better."""
        used = self._exits.get(self._used) if self._used else None
        if self._used and used and not used.failed:
            best = self._exits[order[0]]
            if not best.cost < used.cost * ENOUGH_BETTER:
                order.remove(self._used)
                order.insert(0, self._used)
        if self._exits[order[0]].samples:
            self._used = order[0]
