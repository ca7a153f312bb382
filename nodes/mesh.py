"""One node's tables: which label means what from which neighbour, and the sessions that end here.

A label is chosen by the node that receives it and holds only for the neighbour it was installed
for: the key is (neighbour, label), and the neighbour is the key that CURVE proved. Synchronous and
without I/O; what must be done is returned as actions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nodes import wire
from nodes.flows import Flows, Windows
from nodes.wire import Code, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_LABELS: Final = 16_384  # of one neighbour


class NoSuchNeighbour(Exception):
    """The route goes through a neighbour to which there is no link."""


class TableFull(Exception):
    """The neighbour has as many labels as it may."""


@dataclass(slots=True, frozen=True)
class Onward:
    """Where a frame goes next, and the label it must carry there."""

    neighbour: str
    label: int


@dataclass(slots=True, eq=False)
class Relay:
    """Frames with this label go on to `onward`."""

    route: str
    onward: Onward
    kept: int = 0  # bytes waiting here for the next link
    frames: int = 0
    octets: int = 0


@dataclass(slots=True, eq=False)
class Session:
    """Frames with this label end here: all streams between this node and `peer`."""

    route: str
    peer: str
    flows: Flows
    onward: Onward | None = None  # None until the route to the peer is known too
    sent: int = 0  # frames; the counter in their header
    received: int = 0

    def number_out(self) -> int:
        """The counter of the next frame."""
        self.sent += 1
        return self.sent

    def check_in(self, counter: int) -> None:
        """Frames arrive in order and complete, or the session is broken; raises WireError."""
        self.received += 1
        if counter != self.received:
            raise WireError(f"frame {counter} where {self.received} was due")


@dataclass(slots=True, frozen=True)
class Send:
    """Send a frame to a neighbour."""

    neighbour: str
    frame: bytes


@dataclass(slots=True, frozen=True)
class Ended:
    """A session is over; its streams are to be cut with `code`."""

    session: Session
    code: Code


Action = Send | Ended
Entry = Relay | Session
Table = dict[int, Entry]


@dataclass(slots=True)
class Mesh:
    """The tables of the node `own`. `new_label` returns random non-zero 32-bit numbers."""

    own: str
    new_label: Callable[[], int]
    windows: Windows = field(default_factory=Windows)
    said_by: bytes = bytes(wire.KEY_BYTES)  # the own key, raw, for the CLOSE that begins here
    tables: dict[str, Table] = field(default_factory=dict)  # by neighbour
    sessions: dict[str, Session] = field(default_factory=dict)  # by peer
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
                actions += self._end(entry, Code.LINK_LOST)
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

    def end(
        self, route: str, neighbour: str, peer: str, onward: Onward | None
    ) -> tuple[int, list[Action]]:
        """End a route from `peer` here; returns the label and what becomes of an older session."""
        session = Session(route, peer, Flows(odd=self.own < peer, windows=self.windows), onward)
        label = self._install(neighbour, session)
        old = self.sessions.get(peer)
        actions = self.remove(old.route, Code.LINK_LOST) if old is not None else []
        self.sessions[peer] = session
        return label, actions

    def bind(self, route: str, peer: str, onward: Onward) -> Session | None:
        """The way to `peer` is known; None when the session is gone already."""
        session = self.sessions.get(peer)
        if session is None or session.route != route or onward.neighbour not in self.tables:
            return None
        session.onward = onward
        return session

    def remove(self, route: str, code: Code) -> list[Action]:
        """Forget a route; a session that ended here ends."""
        actions: list[Action] = []
        for neighbour, label in self._routes.pop(route, ()):
            entry = self.tables.get(neighbour, {}).pop(label, None)
            if isinstance(entry, Session):
                actions += self._end(entry, code)
        return actions

    def hang_up(self, session: Session, code: Code) -> list[Action]:
        """End a session from this side; the far end is told."""
        told: Iterable[Action] = [self._close(session.onward, code)] if session.onward else []
        return [*told, *self.remove(session.route, code)]

    def closed(self, neighbour: str, label: int, code: Code, said_by: bytes = b"") -> list[Action]:
        """A CLOSE came: pass it on or end the session."""
        entry = self.tables.get(neighbour, {}).get(label)
        if entry is None:
            return []
        actions = self.remove(entry.route, code)
        if isinstance(entry, Relay) and entry.onward.neighbour in self.tables:
            actions.append(self._close(entry.onward, code, said_by))
        return actions

    def overrun(self, relay: Relay) -> list[Action]:
        """An end of this route ignores its windows: drop the route and tell both ends."""
        ends = [
            self._close(entry.onward, Code.PROTOCOL)
            for neighbour, label in self._routes.get(relay.route, ())
            if (entry := self.tables.get(neighbour, {}).get(label)) and entry.onward
        ]
        return [*ends, *self.remove(relay.route, Code.PROTOCOL)]

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

    def _end(self, session: Session, code: Code) -> list[Action]:
        if self.sessions.get(session.peer) is session:
            del self.sessions[session.peer]
        return [Ended(session, code)]

    def _close(self, onward: Onward, code: Code, said_by: bytes = b"") -> Send:
        return Send(onward.neighbour, wire.close(onward.label, code, said_by or self.said_by))
