"""A mesh that carries out what the planner orders, without nodes: for tests of the manager's core.

`Ordered` plays the part of the service and of all nodes. Each route that was built and not dropped is
in `standing`; what each end sends on is in `used`.
"""

from collections import deque
from itertools import count, pairwise

from nodes.api import LinkState, Policy, StandingRoute
from nodes.manager.pairs import Action, Build, Drop, Ends, NoWay, Ready, Switch, Tell, ends_of
from nodes.manager.planner import Planner
from nodes.manager.topology import Link, Topology, link_of


class Ordered:
    """`silent` nodes fail all they are asked; with `slow`, routes are built when `finish` is called."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.numbers = count(1)
        self.standing: dict[str, tuple[str, ...]] = {}
        self.used: dict[tuple[str, str], str] = {}  # (end, peer) -> route
        self.told: list[tuple[Ends, str]] = []  # "ready" or why there is no way
        self.events: list[Tell] = []
        self.silent: set[str] = set()
        self.slow = False
        self.under_way: deque[Build] = deque()
        self.now = 100.0
        self.start_manager()

    def start_manager(self) -> None:
        """A manager that knows what people want and nothing else; what was being built is lost."""
        wishes = self.planner.wishes if hasattr(self, "planner") else None
        self.planner = Planner(self.topology, lambda: f"{next(self.numbers):016x}", wishes)
        self.under_way.clear()

    def wanted(self, pair: str) -> None:
        a, b = pair
        self.carry_out(self.planner.wanted(a, b, self.now))

    def policy(self, pair: str, policy: Policy) -> None:
        ends = ends_of(*pair)
        wishes = self.planner.wishes.with_policy(ends, policy)
        self.carry_out(self.planner.wish(wishes, ends, self.now))

    def by_hand(self, path: str) -> None:
        ends = ends_of(path[0], path[-1])
        ordered = list(path if path[0] == ends[0] else path[::-1])
        wishes = self.planner.wishes.by_hand(ends, ordered)
        self.carry_out(self.planner.wish(wishes, ends, self.now))

    def free(self, pair: str) -> None:
        ends = ends_of(*pair)
        wishes = self.planner.wishes.freed(ends)
        self.carry_out(self.planner.freed(wishes, ends, self.now))

    def later(self, seconds: int) -> None:
        """Time goes by, in ticks of a second."""
        for _ in range(seconds):
            self.now += 1
            self.carry_out(self.planner.tick(self.now))

    def lose_link(self, link: str) -> None:
        a, b = link
        changes = self.topology.link(a, b, up=False, now=self.now)
        self.carry_out(self.planner.changed(changes, self.now))

    def gain_link(self, link: str) -> None:
        a, b = link
        changes = self.topology.link(a, b, up=True, now=self.now)
        changes += self.topology.link(b, a, up=True, now=self.now)
        self.carry_out(self.planner.changed(changes, self.now))

    def measure(self, link: str, rtt: float) -> None:
        """Both ends measure a link that is there anew."""
        a, b = link
        edge = self.topology.graph[a].get(b)
        if edge is not None:
            edge.measured(LinkState(b, rtt=rtt), LinkState(a, rtt=rtt))

    def report_standing(self, key: str) -> None:
        """A node tells which routes end at it."""
        routes = [
            StandingRoute(name, list(path), self.used.get((key, _other(path, key))) == name)
            for name, path in sorted(self.standing.items())
            if key in (path[0], path[-1])
        ]
        self.carry_out(self.planner.standing(key, routes, self.now))

    def finish(self) -> None:
        """What is being built is ready."""
        while self.under_way:
            self._build(self.under_way.popleft())

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Build() if self.slow:
                    self.under_way.append(action)
                case Build():
                    self._build(action)
                case Switch():
                    self._switch(action)
                case Drop(route, _path):
                    self._drop(route)
                case Ready(ends):
                    self.told.append((ends, "ready"))
                case NoWay(ends, problem):
                    self.told.append((ends, problem))
                case Tell():
                    self.events.append(action)

    def _switch(self, order: Switch) -> None:
        for end, peer in (order.ends, order.ends[::-1]):
            if order.route in self.standing and end not in self.silent:
                self.used[end, peer] = order.route
        if order.route in self.standing and not self.silent & {*order.ends}:
            self.planner.switched(order.ends, order.route)

    def _drop(self, route: str) -> None:
        """An end that loses the route it uses changes to another one that it has."""
        self.standing.pop(route, None)
        for (end, peer), used in self.used.items():
            if used == route:
                others = [n for n, p in self.standing.items() if {p[0], p[-1]} == {end, peer}]
                self.used[end, peer] = others[-1] if others else ""

    def _build(self, order: Build) -> None:
        path = order.path
        for here in path:
            if here in self.silent:
                failed = self.planner.failed(order.ends, order.route, "silent", here, self.now)
                self.carry_out(failed)
                return
        for here, other in pairwise(path):
            if other not in self.topology.graph.get(here, {}):
                failed = self.planner.failed(order.ends, order.route, "no link", here, self.now)
                self.carry_out(failed)
                return
        self.standing[order.route] = path
        if order.active:
            for end, peer in (order.ends, order.ends[::-1]):
                self.used[end, peer] = order.route
        self.carry_out(self.planner.built(order.ends, order.route, path, self.now))

    # What tests look at -------------------------------------------------------------------------

    def active(self, pair: str) -> str:
        found = self.planner.pairs[ends_of(*pair)].active
        return "".join(found.path) if found else ""

    def standby(self, pair: str) -> str:
        found = self.planner.pairs[ends_of(*pair)].standby
        return "".join(found.path) if found else ""

    def sends_on(self, end: str, peer: str) -> str:
        """The path that an end uses."""
        return "".join(self.standing.get(self.used.get((end, peer), ""), ()))


def _other(path: tuple[str, ...], key: str) -> str:
    return path[-1] if path[0] == key else path[0]


def links(path: str) -> set[Link]:
    return {link_of(a, b) for a, b in pairwise(path)}
