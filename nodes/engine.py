"""The data plane of a node: puts links, tables, sessions and pumps together.

The engine owns the tables, the sessions and all pumps, hears from the links, and knows neither the bus
nor the local socket: `Control` asks for routes, `AppPort` for streams. It does no I/O of its own and
reads no clock but the one that it was given, so many can run in one test.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from bus.identity import from_bytes, short, to_bytes
from nodes import datagrams, wire
from nodes.acks import Told
from nodes.actions import Again, Dead, Emit, Ended, Switched, Up, Wanted
from nodes.alarms import Alarms
from nodes.datagrams import Datagrams
from nodes.delivery import Pool
from nodes.flows import Flows, TooManyStreams
from nodes.keying import Keying
from nodes.lane import TTL, Lane
from nodes.mesh import Closed, Mesh, Onward, Relay, Send, TableFull
from nodes.observer import Observer
from nodes.probing import Echo, Probing, noting
from nodes.relaying import Relaying
from nodes.sealing import Cipher
from nodes.session import Session
from nodes.switchboard import NOBODY, Listening, Switchboard
from nodes.tunnel.hub import Tunnels
from nodes.ways import Way
from nodes.windows import Windows
from nodes.wire import DATAGRAM_LANE, ON_ROUTES, Code, FrameType, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus import KeyPair
    from nodes.actions import Action
    from nodes.links.base import Link, Packet
    from nodes.mesh import Action as TableAction
    from nodes.pump import Holder, Pump

__all__ = ["NOBODY", "Echo", "Engine", "Listening", "TooManyStreams"]

log = logging.getLogger(__name__)

MAX_SESSIONS: Final = 4096
_OPENED: Final = memoryview(bytearray(wire.MAX_PAYLOAD))  # used and left within one call
_DATAGRAM: Final = bytes([Told.DATAGRAM])


class Engine:
    """See the module. `key` is the node's own."""

    def __init__(
        self,
        keypair: KeyPair,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = secrets.token_bytes,
        ciphers: list[Cipher] | None = None,
    ) -> None:
        self.key = keypair.public
        self.observer = Observer()
        self.counters: Counter[str] = Counter()
        self.mesh = Mesh(lambda: secrets.randbits(32) or 1, said_by=to_bytes(keypair.public))
        self.links: dict[str, Link] = {}
        self.sessions: dict[str, Session] = {}  # by peer
        self.clock = clock
        self._random = random
        self._ciphers = ciphers or list(Cipher)
        self._secret = to_bytes(keypair.secret)
        self._probing = Probing(to_bytes(keypair.public))
        self._relaying = Relaying(self.mesh, self.links, self._probing, self.counters)
        self.datagrams = Datagrams(self.counters)
        self._windows = Windows()
        self._pool = Pool()
        self._lanes: dict[str, Lane] = {}  # by peer
        self.tunnels = Tunnels(self._lanes, self.counters, clock)
        self._board = Switchboard(self.tunnels)
        self.listeners: dict[int, Listening] = self._board.listeners  # by port
        self.allowed = self._board.allowed  # by port, for those that not all nodes may use
        self._alarms: Alarms[Lane] = Alarms(self._wake)

    # For the control part -----------------------------------------------------------------------

    def lane(self, peer: str) -> Lane | None:
        """The way to `peer`, if there is a route to it."""
        lane = self._lanes.get(peer)
        return lane if lane is not None and lane.link is not None else None

    def relay(self, route: str, neighbour: str, onward: Onward) -> int:
        """Raises NoSuchNeighbour, TableFull."""
        return self.mesh.relay(route, neighbour, onward)

    def end(
        self, route: str, neighbour: str, peer: str, onward: Onward | None, *, standby: bool = False
    ) -> int:
        """End a route from `peer` here; raises NoSuchNeighbour, TableFull."""
        lane = self._lane(peer)
        way = Way(route, peer, onward, standby)
        label = self.mesh.end(way, neighbour)
        lane.session.add_way(way, self.clock())
        self._act(lane)
        return label

    def bind(self, route: str, peer: str, onward: Onward, *, standby: bool = False) -> None:
        """The way to `peer` on a route that ends here is known; the session goes over it, or may."""
        way = self.mesh.bind(route, peer, onward)
        lane = self._lanes.get(peer)
        if way is not None and lane is not None:
            now = self.clock()
            way.standby = standby
            lane.session.bound(now)
            if not standby:
                lane.session.want(now)  # a route is asked for by somebody who will use it
            self._act(lane)

    def prefer(self, route: str, peer: str) -> bool:
        """Use this route to `peer` from now on, all others stand by; whether it is there."""
        lane = self._lanes.get(peer)
        if lane is None or lane.session.ways.of(route) is None:
            return False
        lane.session.prefer(route, self.clock())
        self._act(lane)
        return True

    def unreachable(self, peer: str, code: Code) -> None:
        """No route was found: who only asks for a stream need not wait until one comes."""
        lane = self._lanes.get(peer)
        if lane is not None and lane.link is None:
            self._board.give_up(lane, code)

    def has_way(self, route: str, peer: str) -> bool:
        """Whether this route to `peer` ends here."""
        session = self.sessions.get(peer)
        return session is not None and session.ways.of(route) is not None

    def remove(self, route: str) -> None:
        """Forget a route; what stands of it elsewhere is the caller's affair."""
        for action in self.mesh.remove(route, Code.LINK_LOST):
            if isinstance(action, Closed):
                self._drop(action.way, "the manager took it down")

    def probe(self, way: Way, ttl: int, done: Callable[[Echo], None]) -> bool:
        """Ask the node `ttl` links away on `way`; `done` hears its answer, if one comes."""
        link = self.links.get(way.onward.neighbour) if way.onward is not None else None
        if link is None or way.onward is None:
            return False
        payload = self._probing.ask(way, self.clock(), done)
        link.send(wire.head(FrameType.PROBE, way.onward.label, ttl=ttl), payload)
        return True

    def ping(self, peer: str, done: Callable[[float], None]) -> None:
        """Ask the far end of the session with `peer`; `done` hears the round trip, if it answers."""
        lane = self._lanes.get(peer)
        if lane is not None:
            lane.session.pings.ask(done)
            lane.session.want(self.clock())
            if lane.session.up:
                lane.session.pings.flush(self.clock())
            self._act(lane)

    def tick(self) -> None:
        """Once a second."""
        now = self.clock()
        self._board.tick()
        self.tunnels.tick()
        self.mesh.tick()
        self._probing.tick(now)
        for lane in list(self._lanes.values()):
            session = lane.session
            for way in session.ways.due(now):
                self.probe(way, TTL, noting(way))
            session.tick(now)
            self._act(lane)
            if session.idle(now):
                self._forget_session(lane)

    def handle_timer(self) -> None:
        """At the time that `observer.wake` was told."""
        now = self.clock()
        self._alarms.ring(now, lambda lane: self._due(lane, now))

    def _wake(self, when: float) -> None:
        self.observer.wake(when)

    def _due(self, lane: Lane, now: float) -> None:
        if lane.session.next_timer <= now:
            lane.session.handle_timer(now)
        self._act(lane)

    def stop(self) -> None:
        """End all sessions and tell the far ends."""
        for lane in list(self._lanes.values()):
            lane.session.hang_up(Code.STOPPING)
            self._act(lane)

    # For the local port -------------------------------------------------------------------------

    def open(
        self, lane: Lane, port: int, greeting: bytes, holder: Holder, early: bytes = b""
    ) -> Pump:
        """Ask for a stream; the holder hears the answer. Raises TooManyStreams."""
        stream = lane.flows.open(port, greeting, early)
        pump = self._board.connect(lane, stream, holder)
        lane.session.want(self.clock())
        lane.flush()
        self._act(lane)
        return pump

    def accept(self, pump: Pump, reply: bytes) -> None:
        pump.answered()
        pump.lane.flows.accept(pump.stream, reply)
        pump.lane.flush()

    def send_datagram(self, lane: Lane, port: int, source: int, data: bytes) -> None:
        """Send one, or drop and count it when there is no room."""
        lane.session.want(self.clock())
        sent = lane.send_datagram(datagrams.pack(port, source, data))
        self.counters["datagram_out" if sent else "datagram_no_room"] += 1
        self._act(lane)

    def refuse(self, pump: Pump, code: int, reply: bytes) -> None:
        pump.lane.flows.refuse(pump.stream, code, reply)
        pump.lane.flush()
        pump.holder = NOBODY
        pump.cut(Code.REFUSED)

    @property
    def pumps(self) -> list[Pump]:
        """The ends of streams that are here."""
        return list(self._board.pumps.values())

    @property
    def streams(self) -> int:
        return len(self._board.pumps)

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
        self._apply(self.mesh.link_down(link.neighbour), f"link to {link.name} is down: {reason}")
        self.observer.link_down(link.neighbour, reason)

    def writable(self, link: Link, connection: int) -> None:
        for lane in list(self._lanes.values()):
            if lane.link is link:
                lane.resume_on(connection)

    def received(self, link: Link, packet: Packet) -> None:
        """A frame of a neighbour; raises WireError when the neighbour is to blame for it."""
        kind = packet.type
        entry = self.mesh.tables[link.neighbour].get(packet.label)
        if entry is None:
            self.counters["unknown_label"] += 1
        elif kind == FrameType.CLOSE:
            code, said_by = wire.parse_close(packet.payload)
            actions = self.mesh.closed(link.neighbour, packet.label, code, said_by)
            self._apply(actions, code.text)
        elif kind not in ON_ROUTES:
            self.counters["unexpected_type"] += 1
        elif isinstance(entry, Relay):
            if not self._relaying.pass_on(link, entry, packet):
                self._apply(self.mesh.overrun(entry), "an end ignores its window")
        elif kind == FrameType.DATA:
            self._arrived(entry, packet)
        elif kind == FrameType.HANDSHAKE:
            lane = self._lanes[entry.peer]
            lane.session.handshake(entry, packet.payload, self.clock())
            self._act(lane)
        elif kind == FrameType.PROBE:
            self._relaying.echo(entry, link, packet)
        else:
            self._probing.answered(packet.payload, entry, self.clock())

    def _arrived(self, way: Way, packet: Packet) -> None:
        """A frame for a session that ends here; a far end that breaks the rules loses it."""
        lane = self._lanes[way.peer]
        session = lane.session
        now = self.clock()
        record = session.receive(way, packet, _OPENED, now)
        if record is not None:
            try:
                if packet.lane == DATAGRAM_LANE:
                    if record[:1] == _DATAGRAM:
                        self.datagrams.came(way.peer, record)
                    else:
                        session.told(record, now)
                else:
                    self._board.handle(lane, record, packet.lane)
            except WireError as error:
                self.counters["session_broke_protocol"] += 1
                log.warning("session with %s broke the protocol: %s", short(way.peer), error)
                session.hang_up(Code.PROTOCOL)
        if session.incoming.ack_due <= now:
            session.acknowledge(now)
        if session.flows.outbox:
            lane.flush()
        if session.actions:
            self._act(lane)
        elif session.incoming.ack_due < lane.alarm:
            self._alarms.set(lane, session.next_timer)

    # Shared -------------------------------------------------------------------------------------

    def _lane(self, peer: str) -> Lane:
        """The way out to `peer`, new if there is none; raises TableFull."""
        lane = self._lanes.get(peer)
        if lane is None:
            if len(self._lanes) >= MAX_SESSIONS:
                raise TableFull(peer)
            keying = Keying(self.key, peer, self._secret, self._random, self._ciphers)
            odd = self.key < peer
            session = Session(
                keying, lambda: Flows(odd=odd, windows=self._windows), self.clock(), self._pool
            )
            lane = self._lanes[peer] = Lane(peer, session, self.clock)
            self.sessions[peer] = session
        return lane

    def _forget_session(self, lane: Lane) -> None:
        lane.session.over(Code.IDLE)
        self._act(lane)
        del self._lanes[lane.peer], self.sessions[lane.peer]

    def _act(self, lane: Lane) -> None:
        """Do what a session wants done."""
        actions = lane.session.actions
        go_on = False
        while actions:
            action = actions.popleft()
            if isinstance(action, Emit):
                self._emit(action)
            elif isinstance(action, Again):
                go_on = True
            else:
                go_on |= self._change(lane, action)
        if go_on:
            lane.resume()
        self._alarms.set(lane, lane.session.next_timer)

    def _change(self, lane: Lane, action: Action) -> bool:
        """What happens seldom; whether the lane may be able to send again."""
        match action:
            case Switched():
                way = lane.session.ways.used
                onward = way.onward if way is not None else None
                lane.bind(self.links.get(onward.neighbour) if onward else None, onward)
                self.observer.route_used(lane.peer, way.route if way is not None else "")
            case Ended(streams, code):
                self._board.cut(streams, code)
            case Wanted(reason):
                self.observer.route_wanted(lane.peer, reason)
            case Dead(way, reason):
                self._apply(self.mesh.hang_up(way, Code.TIMEOUT), reason)
            case _:
                pass
        self.tunnels.changed(lane.peer)
        return isinstance(action, Switched | Up)

    def _emit(self, action: Emit) -> None:
        onward = action.way.onward
        if onward is not None and (link := self.links.get(onward.neighbour)) is not None:
            link.send(action.head(onward.label, TTL), action.payload)

    def _apply(self, actions: list[TableAction], reason: str) -> None:
        """Do what the tables want done."""
        for action in actions:
            if isinstance(action, Send):
                if (link := self.links.get(action.neighbour)) is not None:
                    link.send(action.frame[: wire.HEAD.size], action.frame[wire.HEAD.size :])
            elif isinstance(action, Closed):
                way, said_by = action.way, action.said_by
                at = from_bytes(said_by) if any(said_by) else ""
                self.observer.route_down(way.route, way.peer, reason, at)
                self._drop(way, reason)

    def _drop(self, way: Way, reason: str) -> None:
        lane = self._lanes.get(way.peer)
        if lane is not None:
            lane.session.drop_way(way, self.clock(), reason)
            self._act(lane)
