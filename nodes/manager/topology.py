"""Which nodes and links there are, and how good the links are. No I/O, no clock of its own.

All of it is soft state: nodes report themselves every few seconds, and who stays silent is dropped.
A link counts only while both its ends report it, and by the worse of what they measured: a node that
lies about its links attracts no traffic by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nodes.api import LinkState, Registration

FORGET_AFTER: Final = 12.0  # s without a word from a node
MAX_NODES: Final = 10_000
MAX_LINKS: Final = 4_096  # of one node
FLAP_HALF_LIFE: Final = 60.0  # s
MAX_FLAPS: Final = 16.0

_UNMEASURED: Final = 1.0  # s: a link that nobody has measured comes after all that are
_PER_HOP: Final = 0.001  # s of work that a node puts on top
_PER_RETRANSMIT: Final = 0.01  # s for each in a second
_PER_FLAP: Final = 0.1  # s
_WORST: Final = 1.0  # s: no single measurement weighs more

Link = tuple[str, str]  # the keys of both ends, the smaller first


def link_of(a: str, b: str) -> Link:
    return (a, b) if a < b else (b, a)


class NameTaken(Exception):
    """Another live node has this name."""


class TooManyNodes(Exception):
    pass


@dataclass(slots=True)
class Node:
    key: str
    name: str
    endpoint: str
    since: float
    seen: float
    auto_peers: int = 0
    links: dict[str, LinkState | None] = field(default_factory=dict)  # by neighbour, as it reported


@dataclass(slots=True, eq=False)
class Edge:
    """A link that both ends report. `delay` is what it costs in time, in s, derived from the rest."""

    link: Link
    rtt: float | None = None  # s
    rate: float | None = None  # bytes/s
    load: float = 0.0  # of its rate, 0 to 1
    wait: float = 0.0  # s until what is queued has left
    retransmits: float = 0.0  # a second
    flaps: float = 0.0  # losses of late
    delay: float = _UNMEASURED + _PER_HOP

    def measured(self, one: LinkState | None, other: LinkState | None) -> None:
        """Take what the two ends say; the worse counts, and nonsense counts as the worst."""
        said = [state for state in (one, other) if state is not None]
        rtts = [_sane(state.rtt, _WORST) for state in said if state.rtt is not None]
        rates = [_sane(state.rate, 0.0) for state in said if state.rate is not None]
        self.rtt = max(rtts, default=None)
        self.rate = min(rates, default=None)
        rate = self.rate or 0.0
        self.load = self.wait = 0.0
        if rate > 0:
            used = max(_sane(state.used, rate) for state in said)
            queued = max(_sane(state.queued, rate) for state in said)
            self.load, self.wait = min(1.0, used / rate), min(_WORST, queued / rate)
        self.retransmits = max((_sane(state.retransmits, 100.0) for state in said), default=0.0)
        self.weigh()

    def weigh(self) -> None:
        rtt = _UNMEASURED if self.rtt is None else min(self.rtt, _WORST * 10)
        lossy = min(_WORST, self.retransmits * _PER_RETRANSMIT)
        shaky = self.flaps * _PER_FLAP
        self.delay = rtt + self.wait + lossy + shaky + _PER_HOP


def _sane(value: float, otherwise: float) -> float:
    """A peer's number, unless it is none: infinite, not a number, or beyond all machines."""
    return value if 0 <= value < 1e15 else otherwise


@dataclass(slots=True, frozen=True)
class Change:
    """A node or a link (`b` set) appeared or went; `silent`: because a node says nothing any more."""

    a: str
    b: str | None
    up: bool
    silent: bool = False


Graph = dict[str, dict[str, Edge]]


class Topology:
    """See the module. `graph` holds the links that count: node -> neighbour -> link."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.graph: Graph = {}
        self._by_name: dict[str, str] = {}
        self._flaps: dict[Link, tuple[float, float]] = {}  # how many, and when that was right

    def register(self, key: str, report: Registration, now: float) -> list[Change]:
        """Take a node's report; raises NameTaken, TooManyNodes."""
        holder = self._by_name.get(report.name)
        if holder is not None and holder != key:
            raise NameTaken(holder)
        changes: list[Change] = []
        node = self.nodes.get(key)
        if node is None:
            if len(self.nodes) >= MAX_NODES:
                raise TooManyNodes
            node = self.nodes[key] = Node(key, report.name, report.endpoint, now, now)
            self.graph[key] = {}
            changes.append(Change(key, None, up=True))
        elif node.name != report.name:
            del self._by_name[node.name]
        self._by_name[report.name] = key
        node.name, node.endpoint, node.seen = report.name, report.endpoint, now
        node.auto_peers = report.auto_peers
        links = {state.neighbour: state for state in report.links if state.neighbour != key}
        lost = [other for other in node.links if other not in links]
        node.links = dict(links)
        for other in lost:
            changes += self._gone(key, other, now)
        for other in links:
            changes += self._confirmed(key, other, now)
        return changes

    def link(self, key: str, neighbour: str, *, up: bool, now: float) -> list[Change]:
        """Take a report on one link of a known node."""
        node = self.nodes[key]
        if not up:
            node.links.pop(neighbour, None)
            return self._gone(key, neighbour, now)
        if neighbour == key or (neighbour not in node.links and len(node.links) >= MAX_LINKS):
            return []
        node.links.setdefault(neighbour, None)
        return self._confirmed(key, neighbour, now)

    def expire(self, now: float) -> list[Change]:
        """Drop nodes that have been silent, and what is remembered of links for too long."""
        changes: list[Change] = []
        for node in [n for n in self.nodes.values() if now - n.seen > FORGET_AFTER]:
            for neighbour in self.graph.pop(node.key):
                self.graph[neighbour].pop(node.key, None)
                changes.append(Change(node.key, neighbour, up=False, silent=True))
            del self.nodes[node.key]
            self._by_name.pop(node.name, None)
            changes.append(Change(node.key, None, up=False, silent=True))
        for link in [k for k, (_, at) in self._flaps.items() if now - at > 8 * FLAP_HALF_LIFE]:
            del self._flaps[link]
        return changes

    def find(self, target: str) -> Node | None:
        """A node by key or name."""
        return self.nodes.get(target) or self.nodes.get(self._by_name.get(target, ""))

    def edges(self) -> Iterable[Edge]:
        for here, neighbours in self.graph.items():
            for there, edge in neighbours.items():
                if here < there:
                    yield edge

    def _confirmed(self, key: str, other: str, now: float) -> list[Change]:
        """A node reports a link: it counts if the other end does, too."""
        there = self.nodes.get(other)
        if there is None or key not in there.links:
            return []
        edge = self.graph[key].get(other)
        changes = []
        if edge is None:
            edge = self.graph[key][other] = self.graph[other][key] = Edge(link_of(key, other))
            changes.append(Change(key, other, up=True))
        edge.flaps = self._flaps_now(edge.link, now)
        edge.measured(self.nodes[key].links[other], there.links[key])
        return changes

    def _gone(self, key: str, other: str, now: float) -> list[Change]:
        """A node no longer reports a link; one end is enough to unmake it."""
        if self.graph[key].pop(other, None) is None:
            return []
        self.graph[other].pop(key, None)
        link = link_of(key, other)
        self._flaps[link] = (min(MAX_FLAPS, self._flaps_now(link, now) + 1), now)
        return [Change(key, other, up=False)]

    def _flaps_now(self, link: Link, now: float) -> float:
        count, at = self._flaps.get(link, (0.0, now))
        return count * 0.5 ** ((now - at) / FLAP_HALF_LIFE) if count else 0.0
