"""Which nodes and links there are, and the shortest way through them. No I/O, no clock of its own.

All of it is soft state: nodes report themselves every few seconds, and who stays silent is dropped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

FORGET_AFTER: Final = 12.0  # s without a word from a node
MAX_NODES: Final = 10_000


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
    links: set[str] = field(default_factory=set)  # neighbours, as it reported


@dataclass(slots=True, frozen=True)
class Change:
    """A node or a link (`b` set) appeared or went."""

    a: str
    b: str | None
    up: bool


class Topology:
    """The graph of the mesh; a link counts as up while either end says so."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._by_name: dict[str, str] = {}

    def register(
        self, key: str, name: str, endpoint: str, links: set[str], now: float
    ) -> list[Change]:
        """Take a node's report; raises NameTaken, TooManyNodes."""
        holder = self._by_name.get(name)
        if holder is not None and holder != key:
            raise NameTaken(holder)
        node = self.nodes.get(key)
        before = self._edges(key)
        changes: list[Change] = []
        if node is None:
            if len(self.nodes) >= MAX_NODES:
                raise TooManyNodes
            node = self.nodes[key] = Node(key, name, endpoint, now, now)
            changes.append(Change(key, None, up=True))
        elif node.name != name:
            del self._by_name[node.name]
        self._by_name[name] = key
        for lost in node.links - links:
            self._unlink(key, lost)
        node.name, node.endpoint, node.seen = name, endpoint, now
        node.links = set(links)
        return changes + self._difference(key, before)

    def link(self, key: str, neighbour: str, *, up: bool) -> list[Change]:
        """Take a report on one link of a known node."""
        before = self._edges(key)
        if up:
            self.nodes[key].links.add(neighbour)
        else:
            self._unlink(key, neighbour)
        return self._difference(key, before)

    def expire(self, now: float) -> list[Change]:
        """Drop nodes that have been silent."""
        changes: list[Change] = []
        for node in [n for n in self.nodes.values() if now - n.seen > FORGET_AFTER]:
            before = self._edges(node.key)
            for neighbour in before:
                self._unlink(node.key, neighbour)
            changes += self._difference(node.key, before)
            del self.nodes[node.key]
            self._by_name.pop(node.name, None)
            changes.append(Change(node.key, None, up=False))
        return changes

    def find(self, target: str) -> Node | None:
        """A node by key or name."""
        return self.nodes.get(target) or self.nodes.get(self._by_name.get(target, ""))

    def path(self, start: str, goal: str) -> list[str] | None:
        """The keys along a way with the fewest links, both ends included."""
        came_from: dict[str, str] = {start: start}
        queue = deque([start])
        while queue and goal not in came_from:
            here = queue.popleft()
            for neighbour in sorted(self._edges(here)):
                if neighbour not in came_from:
                    came_from[neighbour] = here
                    queue.append(neighbour)
        if goal not in came_from:
            return None
        path = [goal]
        while path[-1] != start:
            path.append(came_from[path[-1]])
        return path[::-1]

    def _edges(self, key: str) -> set[str]:
        """Neighbours of a node that are known themselves."""
        node = self.nodes.get(key)
        if node is None:
            return set()
        said_here = {other for other in node.links if other in self.nodes}
        said_there = {other.key for other in self.nodes.values() if key in other.links}
        return said_here | said_there

    def _unlink(self, a: str, b: str) -> None:
        for one, other in ((a, b), (b, a)):
            if one in self.nodes:
                self.nodes[one].links.discard(other)

    def _difference(self, key: str, before: set[str]) -> list[Change]:
        after = self._edges(key)
        gone = [Change(key, other, up=False) for other in sorted(before - after)]
        return gone + [Change(key, other, up=True) for other in sorted(after - before)]
