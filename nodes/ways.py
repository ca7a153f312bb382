"""The routes between this node and one peer: which of them is used, and which may not be trusted.

A way is one end of a route. One of them is in use; the others stand by, and are probed so that nothing on
them expires. Each end chooses for itself what it sends on and takes frames from all. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MAX_WAYS: Final = 8  # of one peer; the oldest unused goes
PROBE_EVERY: Final = 5.0  # s
PROBES_MISSED: Final = 2  # in a row, then the way is dead
BOUND_WITHIN: Final = (
    12  # times PROBE_EVERY, then a way of which only one direction was laid is dead
)
MAX_BAD: Final = 8  # frames that did not open, then the way is suspect
SUSPECT_FOR: Final = 60.0  # s


@dataclass(slots=True, frozen=True)
class Onward:
    """Where a frame goes next, and the label it must carry there."""

    neighbour: str
    label: int


@dataclass(slots=True, eq=False)
class Way:
    """Frames with this label end here; `onward` is the way back to `peer`, once it is known."""

    route: str
    peer: str
    onward: Onward | None = None
    standby: bool = False  # the manager's wish: to be used only when others fail
    bad: int = 0  # frames that did not open since the last that did
    avoided: float = float("-inf")  # suspect or dead until then
    strikes: int = 0  # times in a row that it was given up and nothing better was there
    probed: float = float("-inf")
    unanswered: int = 0  # probes in a row
    round_trip: float | None = None  # s, of the last probe
    frames: int = 0  # that came
    octets: int = 0

    def came(self, size: int) -> None:
        """A frame opened."""
        self.bad = 0
        self.frames += 1
        self.octets += size


@dataclass(slots=True)
class Ways:
    """See the module."""

    all: list[Way] = field(default_factory=list)  # oldest first
    used: Way | None = None

    def add(self, way: Way) -> list[Way]:
        """Remember a way; returns those that are too many."""
        self.all.append(way)
        unused = [old for old in self.all if old is not self.used]
        return unused[: max(0, len(self.all) - MAX_WAYS)]

    def drop(self, way: Way) -> bool:
        """Forget a way; whether it was the one in use."""
        if way in self.all:
            self.all.remove(way)
        if self.used is not way:
            return False
        self.used = None
        return True

    def of(self, route: str) -> Way | None:
        return next((way for way in self.all if way.route == route), None)

    def prefer(self, route: str) -> None:
        """All but this one are to stand by."""
        if self.of(route) is not None:
            for way in self.all:
                way.standby = way.route != route

    def another(self, now: float) -> bool:
        """Whether there is a way beside the one in use that nothing speaks against."""
        return any(
            way.onward is not None and way.avoided <= now
            for way in self.all
            if way is not self.used
        )

    def avoid(self, way: Way, now: float) -> None:
        way.avoided = now + SUSPECT_FOR
        way.bad = 0
        way.strikes += 1

    def shunned(self, now: float) -> list[Way]:
        """Ways that proved bad and of which another has taken the place."""
        return [way for way in self.all if way.avoided > now and way is not self.used]

    def choose(self, now: float) -> bool:
        """Use the best way there is; whether that is another than before.

        The newest that is not a standby, then the newest standby, then those to be avoided, of
        which the one whose time is nearest to its end: it has rested longest.
        """
        open_ones = [way for way in self.all if way.onward is not None]
        if not open_ones:
            changed = self.used is not None
            self.used = None
            return changed
        good = [way for way in open_ones if way.avoided <= now]
        if good:
            best = [way for way in good if not way.standby] or good
            chosen = best[-1]
        else:
            chosen = min(open_ones, key=lambda way: way.avoided)
        changed = chosen is not self.used
        self.used = chosen
        return changed

    def due(self, now: float) -> list[Way]:
        """Ways to be probed now: those that stand by."""
        due = [way for way in self.all if way is not self.used and now - way.probed >= PROBE_EVERY]
        for way in due:
            way.probed = now
            way.unanswered += 1
        return [way for way in due if way.onward is not None]

    def silent(self) -> list[Way]:
        """Ways that stand by and answer no probe, and those that were never laid to their end."""
        return [
            way
            for way in self.all
            if way is not self.used
            and way.unanswered > (PROBES_MISSED if way.onward is not None else BOUND_WITHIN)
        ]
