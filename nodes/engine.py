"""The data plane of a node: puts links, tables and pumps together.

The engine owns the Mesh tables and all pumps, hears from the links, and knows neither the bus nor
the local socket: `Control` asks for routes, `AppPort` for streams.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from bus.identity import short, to_bytes
from nodes import wire
from nodes.flows import (
    Answered,
    Asked,
    Credited,
    Cut,
    Data,
    Declined,
    Finished,
    Stream,
    TooManyStreams,
)
from nodes.lane import Lane
from nodes.mesh import Action, Ended, Mesh, Onward, Relay, Send, Session
from nodes.pump import Holder, Pump
from nodes.wire import Code, FrameType, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodes.flows import Event
    from nodes.links.base import Link, Packet

__all__ = ["Engine", "Listening", "TooManyStreams"]

log = logging.getLogger(__name__)

MAX_KEPT: Final = 2 * wire.SESSION_WINDOW  # bytes of one route that wait here for its next link


class Listening(Protocol):
    """An app that takes incoming streams."""

    def incoming(self, pump: Pump, origin: str, greeting: bytes) -> None:
        """Take over `pump` as its holder."""
        ...


class _Nobody:
    """Holder of a stream that no app has taken yet, or none any more."""

    def opened(self, pump: Pump, reply: bytes) -> None: ...

    def declined(self, pump: Pump, code: int, reply: bytes) -> None: ...

    def ended(self, pump: Pump) -> None: ...

    def closed(self, pump: Pump, code: Code) -> None: ...


NOBODY: Final = _Nobody()


@dataclass
class Observer:
    """Who else wants to know. Replaced by the node's control part."""

    link_up: Callable[[str], None] = lambda _neighbour: None
    link_down: Callable[[str, str], None] = lambda _neighbour, _reason: None
    session_lost: Callable[[str], None] = lambda _route: None  # from this side


def _label() -> int:
    return secrets.randbits(32) or 1


@dataclass
class Engine:
    """See the module. `key` is the node's own."""

    key: str
    observer: Observer = field(default_factory=Observer)
    listeners: dict[int, Listening] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.mesh = Mesh(self.key, _label, said_by=to_bytes(self.key))
        self.links: dict[str, Link] = {}
        self._lanes: dict[Session, Lane] = {}
        self._pumps: dict[Stream, Pump] = {}

    # For the control part -----------------------------------------------------------------------

    def lane(self, peer: str) -> Lane | None:
        """The way to `peer`, if a session with it is up."""
        session = self.mesh.sessions.get(peer)
        lane = self._lanes.get(session) if session is not None else None
        return lane if lane is not None and lane.link is not None else None

    def relay(self, route: str, neighbour: str, onward: Onward) -> int:
        """Raises NoSuchNeighbour, TableFull."""
        return self.mesh.relay(route, neighbour, onward)

    def end(self, route: str, neighbour: str, peer: str, onward: Onward | None) -> int:
        """End a route here; raises NoSuchNeighbour, TableFull."""
        label, actions = self.mesh.end(route, neighbour, peer, onward)
        session = self.mesh.sessions[peer]
        self._lanes[session] = Lane(session)
        self._apply(actions)
        if onward is not None:
            self.bind(route, peer, onward)
        return label

    def bind(self, route: str, peer: str, onward: Onward) -> None:
        session = self.mesh.bind(route, peer, onward)
        link = self.links.get(onward.neighbour)
        if session is not None and link is not None:
            self._lanes[session].bind(link, onward.label)

    def remove(self, route: str) -> None:
        self._apply(self.mesh.remove(route, Code.LINK_LOST))

    def tick(self) -> None:
        """Once a second."""
        for pump in list(self._pumps.values()):
            pump.tick()

    def stop(self) -> None:
        """Cut all streams and tell the far ends."""
        for pump in list(self._pumps.values()):
            pump.reset(Code.STOPPING)

    # For the local port -------------------------------------------------------------------------

    def open(self, lane: Lane, port: int, greeting: bytes, holder: Holder) -> Pump:
        """Ask for a stream; the holder hears the answer. Raises TooManyStreams."""
        stream = lane.flows.open(port, greeting)
        pump = self._pump(lane, stream, holder)
        lane.flush()
        return pump

    def accept(self, pump: Pump, reply: bytes) -> None:
        pump.answered()
        pump.lane.flows.accept(pump.stream, reply)
        pump.lane.flush()

    def refuse(self, pump: Pump, code: int, reply: bytes) -> None:
        pump.lane.flows.refuse(pump.stream, code, reply)
        pump.lane.flush()
        pump.holder = NOBODY
        pump.cut(Code.REFUSED)

    @property
    def streams(self) -> int:
        return len(self._pumps)

    def _pump(self, lane: Lane, stream: Stream, holder: Holder) -> Pump:
        pump = self._pumps[stream] = Pump(lane, stream, holder, self._forget)
        return pump

    def _forget(self, pump: Pump) -> None:
        self._pumps.pop(pump.stream, None)

    # From the links -----------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        log.info("link to %s (%s) is up", link.name, short(link.neighbour))
        self.links[link.neighbour] = link
        self.mesh.link_up(link.neighbour)
        self.observer.link_up(link.neighbour)

    def link_down(self, link: Link, reason: str) -> None:
        if self.links.get(link.neighbour) is not link:
            return
        log.warning("link to %s (%s) is down: %s", link.name, short(link.neighbour), reason)
        del self.links[link.neighbour]
        self._apply(self.mesh.link_down(link.neighbour))
        self.observer.link_down(link.neighbour, reason)

    def writable(self, link: Link, connection: int) -> None:  # noqa: ARG002 - lanes look themselves
        for lane in list(self._lanes.values()):
            if lane.link is link:
                lane.resume()

    def received(self, link: Link, packet: Packet) -> None:
        """A frame of a neighbour; raises WireError when the neighbour is to blame for it."""
        if packet.type == FrameType.DATA:
            entry = self.mesh.tables[link.neighbour].get(packet.label)
            if isinstance(entry, Relay):
                self._pass_on(entry, packet)
            elif entry is not None:
                self._arrived(self._lanes[entry], packet.counter, packet.payload)
            else:
                self.counters["unknown_label"] += 1
        elif packet.type == FrameType.CLOSE:
            code, said_by = wire.parse_close(packet.payload)
            self._apply(self.mesh.closed(link.neighbour, packet.label, code, said_by))

    def _pass_on(self, entry: Relay, packet: Packet) -> None:
        link = self.links[entry.onward.neighbour]
        size = wire.HEAD.size + len(packet.payload)
        if entry.kept + size > MAX_KEPT:
            # Windows keep honest ends far below; and nobody else shall suffer for this one.
            self.counters["route_overrun"] += 1
            self._apply(self.mesh.overrun(entry))
            return
        entry.frames += 1
        entry.octets += len(packet.payload)
        head = wire.head(
            packet.type,
            entry.onward.label,
            packet.counter,
            lane=packet.lane,
            epoch=packet.epoch,
            ttl=packet.ttl,
        )
        link.forward(head, packet, entry)

    def _arrived(self, lane: Lane, counter: int, payload: memoryview) -> None:
        """A record for a session that ends here; a far end that breaks the rules loses it."""
        try:
            lane.session.check_in(counter)
            event = lane.flows.receive(payload)
        except WireError as error:
            self.counters["session_broke_protocol"] += 1
            log.warning("session with %s broke the protocol: %s", short(lane.session.peer), error)
            self.hang_up(lane, Code.PROTOCOL)
            return
        if type(event) is Data:
            pump = self._pumps.get(event.stream)
            if pump is not None:
                pump.deliver(event.data)
        elif event is not None:
            self._handle(lane, event)
        if lane.flows.outbox:
            lane.flush()

    def _handle(self, lane: Lane, event: Event) -> None:
        if isinstance(event, Asked):
            self._asked(lane, event)
            return
        if isinstance(event, Credited) and event.stream is None:
            lane.resume()
            return
        assert event.stream is not None  # noqa: S101 - the one without was handled above
        pump = self._pumps.get(event.stream)
        if pump is None:
            return
        match event:
            case Credited():
                pump.credited()
            case Finished():
                pump.finished()
            case Cut(_, code):
                pump.cut(code)
            case Answered(_, reply):
                pump.answered()
                pump.holder.opened(pump, reply)
            case Declined(_, code, reply):
                pump.holder.declined(pump, code, reply)
                pump.holder = NOBODY
                pump.cut(Code.REFUSED)
            case Data(_, data):
                pump.deliver(data)

    def _asked(self, lane: Lane, event: Asked) -> None:
        listening = self.listeners.get(event.stream.port)
        if listening is None:
            lane.flows.reset(event.stream, Code.NO_LISTENER)
            return
        pump = self._pump(lane, event.stream, NOBODY)
        listening.incoming(pump, lane.session.peer, event.greeting)

    def hang_up(self, lane: Lane, code: Code) -> None:
        """End a session from this side."""
        route = lane.session.route
        self._apply(self.mesh.hang_up(lane.session, code))
        self.observer.session_lost(route)

    def _apply(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                link = self.links.get(action.neighbour)
                if link is not None:
                    link.send(action.frame[: wire.HEAD.size], action.frame[wire.HEAD.size :])
            elif isinstance(action, Ended):
                self._session_over(action.session, action.code)

    def _session_over(self, session: Session, code: Code) -> None:
        lane = self._lanes.pop(session, None)
        if lane is None:
            return
        lane.link = None
        for stream in session.flows.end():  # those that were complete are still written out
            pump = self._pumps.get(stream)
            if pump is not None:
                pump.cut(code)
