"""Two sessions joined by roads that lose, cut and delay what is on them; time passes when told to."""

from __future__ import annotations

import itertools
import random
from collections import deque
from dataclasses import dataclass, field

from bus.identity import KeyPair, to_bytes
from bus.sockets import new_keypair
from nodes.actions import Action, Dead, Emit, Ended
from nodes.delivery import LANES
from nodes.flows import Flows
from nodes.keying import Keying
from nodes.links.packet import Received
from nodes.sealing import Cipher
from nodes.session import FIRST, Session
from nodes.ways import Onward, Way
from nodes.wire import DATAGRAM_LANE, HEAD, MAX_PAYLOAD, VERSION, FrameType, head

TICK = 0.05  # s
_pairs = sorted((new_keypair() for _ in range(2)), key=lambda pair: pair.public)
SMALL, LARGE = _pairs
BUFFER = memoryview(bytearray(MAX_PAYLOAD))


@dataclass
class Road:
    """One route between the two: what is on it in each direction."""

    name: str
    ways: tuple[Way, Way]
    queues: tuple[deque[bytearray], deque[bytearray]] = field(
        default_factory=lambda: (deque(), deque())
    )
    swallows: bool = False  # takes everything and delivers nothing, and says nothing
    starves: bool = False  # delivers what may be lost, acknowledgements too, and nothing else
    drops: int = 0  # every so many frames that must arrive are not delivered; 0: all are
    passed: int = 0  # such frames that came
    gone: bool = False

    def loses(self, frame: bytearray) -> bool:
        if self.swallows or frame[0] != FIRST or frame[1] == DATAGRAM_LANE:
            return self.swallows
        self.passed += 1
        return self.starves or (self.drops > 0 and self.passed % self.drops == 0)


class Point:
    """One end: a session and what came out of it."""

    def __init__(self, own: KeyPair, peer: str, seed: int) -> None:
        self.own, self.peer = own, peer
        draw = random.Random(seed)
        self._random = draw.randbytes
        self.now = 1000.0 + seed
        self.make()

    def make(self) -> None:
        """Begin with nothing, as after a restart."""
        keying = Keying(
            self.own.public, self.peer, to_bytes(self.own.secret), self._random, list(Cipher)
        )
        odd = self.own.public < self.peer
        self.session = Session(keying, lambda: Flows(odd=odd), self.now)
        self.got: list[list[bytes]] = [[] for _ in range(LANES)]
        self.ended: list[Ended] = []
        self.other: list[Action] = []


class Country:
    """Two points and the roads between them."""

    def __init__(self) -> None:
        self.points = (Point(SMALL, LARGE.public, 1), Point(LARGE, SMALL.public, 2))
        self.roads: list[Road] = []
        self._numbers = itertools.count()

    @property
    def a(self) -> Point:
        return self.points[0]

    @property
    def b(self) -> Point:
        return self.points[1]

    def build(self, *, standby: bool = False) -> Road:
        name = f"road-{next(self._numbers)}"
        onward = Onward("somebody", 1)
        ways = tuple(Way(name, point.peer, onward, standby=standby) for point in self.points)
        road = Road(name, (ways[0], ways[1]))
        self.roads.append(road)
        for side in (0, 1):
            point = self.points[side]
            point.session.add_way(road.ways[side], point.now)
            self.act(side)
        return road

    def cut(self, road: Road) -> None:
        """The road ends, both ends hear of it, and what was on it is lost."""
        if road in self.roads:
            self.roads.remove(road)
        road.gone = True
        for side in (0, 1):
            road.queues[side].clear()
            point = self.points[side]
            point.session.drop_way(road.ways[side], point.now, "it was cut")
            self.act(side)

    def act(self, side: int) -> None:
        """Carry out what the session wants."""
        point = self.points[side]
        actions = point.session.actions
        while actions:
            action = actions.popleft()
            if isinstance(action, Emit):
                self._put(side, action.way, self._frame(action))
            elif isinstance(action, Ended):
                point.ended.append(action)
            elif isinstance(action, Dead):
                point.other.append(action)
                self._close(action.way)
            else:
                point.other.append(action)
        self._drain(side)

    def _close(self, way: Way) -> None:
        """One end gives a road up, and the other hears of it."""
        for road in [road for road in self.roads if way in road.ways]:
            self.cut(road)

    def _frame(self, action: Emit) -> bytearray:
        top = head(action.kind, 1, action.counter, lane=action.lane, epoch=action.epoch, ttl=255)
        return bytearray(top) + action.payload

    def _drain(self, side: int) -> None:
        session = self.points[side].session
        way = session.ways.used
        if way is None or not session.up:
            return
        for lane in range(LANES):
            while (kept := session.outgoing.take_waiting(lane)) is not None:
                top = HEAD.pack(FIRST, lane, kept.epoch, 255, 1, kept.counter)
                self._put(side, way, bytearray(top) + kept.data)

    def _put(self, side: int, way: Way, frame: bytearray) -> None:
        for road in self.roads:
            if way is road.ways[side] and not road.loses(frame):
                road.queues[side].append(frame)

    def send(self, side: int, lane: int, record: bytes) -> bool:
        """Send a record; False while there are no keys or the window is full."""
        point = self.points[side]
        session = point.session
        if not session.up or session.outgoing.room <= 0:
            session.want(point.now)
            self.act(side)
            return False
        kept = session.seal(lane, record, point.now)
        session.outgoing.lanes[lane].waiting.append(kept)
        self.act(side)
        return True

    def deliver(self, road: Road, side: int) -> bool:
        """Hand over the oldest frame that `side` has put on the road."""
        if not road.queues[side]:
            return False
        self.arrive(road, 1 - side, road.queues[side].popleft())
        return True

    def arrive(self, road: Road, side: int, frame: bytearray) -> None:
        point = self.points[side]
        way = road.ways[side]
        if way not in point.session.ways.all:
            return
        packet = Received.of_bytes(bytearray(frame))
        session = point.session
        if packet.type == FrameType.HANDSHAKE:
            session.handshake(way, packet.payload, point.now)
        elif packet.type == FrameType.DATA:
            record = session.receive(way, packet, BUFFER, point.now)
            if record is not None and packet.lane == DATAGRAM_LANE:
                session.told(record, point.now)
            elif record is not None:
                point.got[packet.lane].append(bytes(record))
        session.handle_timer(point.now)
        self.act(side)

    def settle(self) -> None:
        """Deliver until nothing is on any road."""
        while any(self.deliver(road, side) for road in list(self.roads) for side in (0, 1)):
            pass

    def wait(self, seconds: float, *, deliver: bool = True) -> None:
        """Let time pass at both ends."""
        for step in range(round(seconds / TICK)):
            for side in (0, 1):
                point = self.points[side]
                point.now += TICK
                if step % round(1 / TICK) == 0:
                    point.session.tick(point.now)
                if point.session.next_timer <= point.now:
                    point.session.handle_timer(point.now)
                self.act(side)
            if deliver:
                self.settle()

    def join(self) -> None:
        """Have both ends agree on keys."""
        self.a.session.want(self.a.now)
        self.act(0)
        self.settle()
        assert self.a.session.up
        assert self.b.session.up


__all__ = ["BUFFER", "LARGE", "SMALL", "VERSION", "Country", "Point", "Road"]
