"""Nodes on memory links: engines, routes put in by hand, and a clock that moves when told to."""

from __future__ import annotations

import hashlib
import itertools
import random

from bus.identity import KeyPair, from_bytes
from bus.sockets import public_of
from nodes.engine import Engine
from nodes.links.memory import MemoryLink, Nature, World
from nodes.mesh import Onward
from nodes.pump import Pump
from nodes.wire import Code


def keypair(name: str) -> KeyPair:
    """The same key for the same name, always."""
    secret = from_bytes(hashlib.sha256(name.encode()).digest())
    return KeyPair(public_of(secret), secret)


class App:
    """Holder and Listening in one: writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.pumps: list[Pump] = []

    def incoming(self, pump: Pump, origin: str, greeting: bytes) -> None:
        pump.holder = self
        self.pumps.append(pump)
        self.told.append(("incoming", (origin, greeting)))

    def opened(self, pump: Pump, reply: bytes) -> None:
        self.told.append(("opened", reply))

    def declined(self, pump: Pump, code: int, reply: bytes) -> None:
        self.told.append(("declined", (code, reply)))

    def ended(self, pump: Pump) -> None:
        self.told.append(("ended", None))

    def closed(self, pump: Pump, code: Code) -> None:
        self.told.append(("closed", code))


class MemoryMesh:
    """Engines by name. `wanted` collects what they ask the control part for."""

    def __init__(self, *names: str, seed: int = 0, nature: Nature | None = None) -> None:
        self.world = World(seed)
        self.nature = nature or Nature()
        self.links: dict[tuple[str, str], MemoryLink] = {}
        self.wanted: list[tuple[str, str]] = []  # node, peer
        self.down: list[tuple[str, str]] = []  # node, route
        self._routes = itertools.count()
        self.engines: dict[str, Engine] = {}
        self._names: dict[str, str] = {}
        for name in names:
            self.start(name)

    def start(self, name: str) -> Engine:
        """A node that knows nothing."""
        pair = keypair(name)
        draw = random.Random(f"{name}{self.world.now}{len(self._names)}")
        engine = Engine(pair, lambda: self.world.now, draw.randbytes)
        self.engines[name] = engine
        self._names[pair.public] = name
        observer = engine.observer
        observer.wake = lambda when: self.world.at(when, engine.handle_timer)
        observer.route_wanted = lambda peer, _: self.wanted.append((name, self._names[peer]))
        observer.route_down = lambda route, _peer, _reason, _at: self.down.append((name, route))
        self.world.every(1.0, engine.tick)
        return engine

    def key(self, name: str) -> str:
        return self.engines[name].key

    def link(self, a: str, b: str, nature: Nature | None = None) -> tuple[MemoryLink, MemoryLink]:
        ends = self.world.link(
            self.key(a), self.engines[a], self.key(b), self.engines[b], nature or self.nature
        )
        self.links[a, b], self.links[b, a] = ends
        return ends

    def route(self, *path: str, standby: bool = False) -> dict[str, int]:
        """Install a route as the manager does, way back first; by node the label from before it."""
        name = f"route-{next(self._routes)}"
        first, last = path[0], path[-1]
        label = self.engines[first].end(
            name, self.key(path[1]), self.key(last), None, standby=standby
        )
        for at in range(1, len(path) - 1):
            onward = Onward(self.key(path[at - 1]), label)
            label = self.engines[path[at]].relay(name, self.key(path[at + 1]), onward)
        back = Onward(self.key(path[-2]), label)
        label = self.engines[last].end(
            name, self.key(path[-2]), self.key(first), back, standby=standby
        )
        labels = {last: label}
        for at in range(len(path) - 2, 0, -1):
            onward = Onward(self.key(path[at + 1]), label)
            label = self.engines[path[at]].relay(name, self.key(path[at - 1]), onward)
            labels[path[at]] = label
        self.engines[first].bind(
            name, self.key(last), Onward(self.key(path[1]), label), standby=standby
        )
        return labels

    def open(self, a: str, b: str, app: App, greeting: bytes = b"hi") -> Pump:
        """Ask for a stream from `a` to port 80 of `b`, to which a session is there."""
        lane = self.engines[a].lane(self.key(b))
        assert lane is not None
        return self.engines[a].open(lane, 80, greeting, app)

    def run(self, seconds: float = 0.0) -> None:
        self.world.run(seconds)
