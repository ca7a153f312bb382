"""One node's tables: which label means what from which neighbour, and which routes end here.

A label is chosen by the node that receives it and holds only for the neighbour it was installed
for: the key is (neighbour, label), and the neighbour is the key that CURVE proved. Synchronous and
without I/O; what must be done is returned as actions. What travels on a route the sessions know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nodes import wire
from nodes.ways import Onward, Way
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["MAX_LABELS", "Mesh", "NoSuchNeighbour", "Onward", "Relay", "TableFull", "Way"]

MAX_LABELS: Final = 16_384  # of one neighbour
EXPIRES_AFTER: Final = 60  # ticks of a second without a frame either way, then a relay forgets


class NoSuchNeighbour(Exception):
    """The route goes through a neighbour to which there is no link."""


class TableFull(Exception):
    """The neighbour has as many labels as it may."""


@dataclass(slots=True, eq=False)
class Relay:
    """Frames with this label go on to `onward`."""

    route: str
    onward: Onward
    kept: int = 0  # bytes waiting here for the next link
    frames: int = 0
    octets: int = 0
    seen: int = 0  # frames at the last tick
    still: int = 0  # ticks without a frame


@dataclass(slots=True, frozen=True)
class Send:
    """Send a frame to a neighbour."""

    neighbour: str
    frame: bytes


@dataclass(slots=True, frozen=True)
class Closed:
    """A route that ended here is no more; `said_by` is the raw key of who says so, if anybody."""

    way: Way
    code: Code
    said_by: bytes = b""


Action = Send | Closed
Entry = Relay | Way
Table = dict[int, Entry]


@dataclass(slots=True)
class Mesh:
    """The tables of one node. `new_label` returns random non-zero 32-bit numbers."""

    new_label: Callable[[], int]
    said_by: bytes = bytes(wire.KEY_BYTES)  # the own key, raw, for the CLOSE that begins here
    tables: dict[str, Table] = field(default_factory=dict)  # by neighbour
    _routes: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def link_up(self, neighbour: str) -> None:
        self.tables.setdefault(neighbour, {})

    def link_down(self, neighbour: str) -> list[Action]:
        """Forget all that came from or went to `neighbour`, and tell the other sides."""
        lost = self.tables.pop(neighbour, {})
        broken = {entry.route for entry in lost.values()}
        for table in self.tables.values():
            broken |= {
                entry.route
                for entry in table.values()
                if entry.onward is not None and entry.onward.neighbour == neighbour
            }
        actions: list[Action] = []
        for entry in lost.values():
            if isinstance(entry, Relay):
                actions.append(self._close(entry.onward, Code.LINK_LOST))
            else:
                actions.append(Closed(entry, Code.LINK_LOST, self.said_by))
        for route in broken:
            actions += self.remove(route, Code.LINK_LOST)
        return [
            action
            for action in actions
            if not (isinstance(action, Send) and action.neighbour == neighbour)
        ]

    def relay(self, route: str, neighbour: str, onward: Onward) -> int:
        """Pass on what comes from `neighbour`; returns the label it must use."""
        if onward.neighbour not in self.tables:
            raise NoSuchNeighbour(onward.neighbour)
        return self._install(neighbour, Relay(route, onward))

    def end(self, way: Way, neighbour: str) -> int:
        """End a route here, which comes from `neighbour`; returns the label it must use."""
        if way.onward is not None and way.onward.neighbour not in self.tables:
            raise NoSuchNeighbour(way.onward.neighbour)
        return self._install(neighbour, way)

    def bind(self, route: str, peer: str, onward: Onward) -> Way | None:
        """The way to `peer` is known; None when the route is gone already."""
        if onward.neighbour not in self.tables:
            return None
        for entry in self._entries(route):
            if isinstance(entry, Way) and entry.peer == peer:
                entry.onward = onward
                return entry
        return None

    def remove(self, route: str, code: Code, said_by: bytes = b"") -> list[Action]:
        """Forget a route."""
        actions: list[Action] = []
        for neighbour, label in self._routes.pop(route, ()):
            entry = self.tables.get(neighbour, {}).pop(label, None)
            if isinstance(entry, Way):
                actions.append(Closed(entry, code, said_by))
        return actions

    def hang_up(self, way: Way, code: Code) -> list[Action]:
        """Give a route up that ends here, and tell those on it."""
        told: Iterable[Action] = [self._close(way.onward, code)] if way.onward else []
        return [*told, *self.remove(way.route, code)]

    def closed(self, neighbour: str, label: int, code: Code, said_by: bytes = b"") -> list[Action]:
        """A CLOSE came: pass it on, or the route ended here."""
        entry = self.tables.get(neighbour, {}).get(label)
        if entry is None:
            return []
        actions = self.remove(entry.route, code, said_by)
        if isinstance(entry, Relay) and entry.onward.neighbour in self.tables:
            actions.append(self._close(entry.onward, code, said_by))
        return actions

    def overrun(self, relay: Relay) -> list[Action]:
        """An end of this route ignores its window: drop the route and tell both ends."""
        ends = [
            self._close(entry.onward, Code.PROTOCOL)
            for entry in self._entries(relay.route)
            if entry.onward
        ]
        return [*ends, *self.remove(relay.route, Code.PROTOCOL)]

    def back(self, entry: Entry, neighbour: str) -> Onward | None:
        """Where an answer goes to a frame that came from `neighbour` and matched `entry`."""
        if isinstance(entry, Way):
            return entry.onward
        for other in self._entries(entry.route):
            if other.onward is not None and other.onward.neighbour == neighbour:
                return other.onward
        return None

    def tick(self) -> None:
        """Once a second: forget relayed routes on which nothing comes any more, either way."""
        for route in list(self._routes):
            relays = [entry for entry in self._entries(route) if isinstance(entry, Relay)]
            for relay in relays:
                relay.still = relay.still + 1 if relay.frames == relay.seen else 0
                relay.seen = relay.frames
            if relays and min(relay.still for relay in relays) > EXPIRES_AFTER:
                self.remove(route, Code.IDLE)

    def _entries(self, route: str) -> list[Entry]:
        return [
            entry
            for neighbour, label in self._routes.get(route, ())
            if (entry := self.tables.get(neighbour, {}).get(label)) is not None
        ]

    def _install(self, neighbour: str, entry: Entry) -> int:
        table = self.tables.get(neighbour)
        if table is None:
            raise NoSuchNeighbour(neighbour)
        if len(table) >= MAX_LABELS:
            raise TableFull(neighbour)
        label = self.new_label()
        while label in table:
            label = self.new_label()
        table[label] = entry
        self._routes.setdefault(entry.route, []).append((neighbour, label))
        return label

    def _close(self, onward: Onward, code: Code, said_by: bytes = b"") -> Send:
        return Send(onward.neighbour, wire.close(onward.label, code, said_by or self.said_by))
