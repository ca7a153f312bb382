"""Ways through a graph: the cheapest, the cheapest under conditions, two that share no link.

Pure. A cost is a function of (node, next node, link), positive, the same in both directions, and
infinite where nobody shall go. Paths are lists of keys, both ends included, without a loop.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush
from itertools import count, pairwise
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nodes.manager.topology import Edge, Graph

    Cost = Callable[[str, str, Edge], float]

Path = list[str]
_Label = tuple[float, int, float, tuple[str, ...], frozenset[str]]  # bound, …, cost, path, must
_LABELS: Final = 4  # ways to the same place that are followed up, at first
_BUDGET: Final = 4_000  # ways looked at before a search under conditions gives up


def price(graph: Graph, path: Iterable[str], cost: Cost) -> float:
    """What a path costs; infinite when a link of it is not there."""
    total = 0.0
    for here, other in pairwise(path):
        edge = graph.get(here, {}).get(other)
        if edge is None:
            return inf
        total += cost(here, other, edge)
    return total


def cheapest(graph: Graph, start: str, goal: str, cost: Cost) -> Path | None:
    """Dijkstra from both ends: in a mesh of 1,000 nodes it looks at some 60 of them."""
    if start not in graph or goal not in graph:
        return None
    known = ({start: 0.0}, {goal: 0.0})
    came: tuple[dict[str, str], dict[str, str]] = ({}, {})
    heaps = ([(0.0, start)], [(0.0, goal)])
    best, meeting = inf, None
    while heaps[0] and heaps[1]:
        if heaps[0][0][0] + heaps[1][0][0] >= best:
            break
        side = 0 if heaps[0][0][0] <= heaps[1][0][0] else 1
        heap, mine, theirs, origin = heaps[side], known[side], known[1 - side], came[side]
        so_far, here = heappop(heap)
        if so_far > mine[here]:
            continue
        for other, edge in graph[here].items():
            total = so_far + cost(here, other, edge)
            if total < mine.get(other, inf):
                mine[other] = total
                origin[other] = here
                heappush(heap, (total, other))
                if total + theirs.get(other, inf) < best:
                    best, meeting = total + theirs[other], other
    if meeting is None:
        return (start == goal and [start]) or None
    return _back(came[0], meeting)[::-1] + _back(came[1], meeting)[1:]


def _back(came: Mapping[str, str], here: str) -> Path:
    path = [here]
    while here in came:
        here = came[here]
        path.append(here)
    return path


def distances(graph: Graph, start: str, cost: Cost) -> tuple[dict[str, float], dict[str, str]]:
    """What it costs to reach every node, and from where one comes there."""
    known, came = {start: 0.0}, dict[str, str]()
    heap = [(0.0, start)]
    while heap:
        so_far, here = heappop(heap)
        if so_far > known[here]:
            continue
        for other, edge in graph.get(here, {}).items():
            total = so_far + cost(here, other, edge)
            if total < known.get(other, inf):
                known[other], came[other] = total, here
                heappush(heap, (total, other))
    return known, came


def constrained(
    graph: Graph,
    start: str,
    goal: str,
    cost: Cost,
    *,
    min_hops: int = 1,
    max_hops: int,
    must: Iterable[str] = (),
) -> Path | None:
    """The cheapest way found of so many hops that passes all of `must`.

    To find the longest simple path is NP-hard, so there is a bound on the work: first only few ways
    to the same place are followed up; when that finds none, all are, within `_BUDGET`. In a graph
    of a dozen nodes a way is found if there is one.
    """
    search = _Search(graph, start, goal, cost, min_hops, max_hops, frozenset(must))
    return search.run(_LABELS) or search.run(_BUDGET)


class _Bound:
    """No less than what a way still costs; it ignores only that no node is passed twice."""

    def __init__(self, graph: Graph, goal: str, must: frozenset[str], cost: Cost) -> None:
        self._to = {key: distances(graph, key, cost)[0] for key in (goal, *must)}
        self._goal = goal
        self._known: dict[tuple[str, frozenset[str]], float] = {}

    def remaining(self, here: str, must: frozenset[str]) -> float:
        if not must:
            return self._to[self._goal].get(here, inf)
        return min(self._to[key].get(here, inf) + self._from(key, must - {key}) for key in must)

    def _from(self, key: str, must: frozenset[str]) -> float:
        known = self._known.get((key, must))
        if known is None:
            known = self._known[key, must] = self.remaining(key, must)
        return known


class _Search:
    """Best first over simple paths; what remains is estimated from below, so the first is cheapest."""

    def __init__(
        self, graph: Graph, start: str, goal: str, cost: Cost, low: int, high: int,
        must: frozenset[str],
    ) -> None:  # fmt: skip
        self._graph, self._start, self._goal, self._cost = graph, start, goal, cost
        self._low, self._high, self._must = low, high, must
        self._dear = _Bound(graph, goal, must, cost)
        self._far = _Bound(graph, goal, must, lambda a, b, e: 1.0 if cost(a, b, e) < inf else inf)

    def run(self, labels: int) -> Path | None:
        """`labels`: how many ways to the same place are followed up."""
        tickets = count()
        seen: dict[tuple[str, int, frozenset[str]], int] = defaultdict(int)
        least = self._least(0.0, 0, self._start, self._must)
        heap: list[_Label] = [(least, next(tickets), 0.0, (self._start,), self._must)]
        for _ in range(_BUDGET):
            if not heap:
                return None
            bound, _ticket, so_far, path, must = heappop(heap)
            here, hops = path[-1], len(path) - 1
            if bound == inf:
                return None
            if here == self._goal and hops:
                if hops >= self._low and not must:
                    return list(path)
                continue
            state = (here, hops, must)
            seen[state] += 1
            if seen[state] > labels:
                continue
            for other, edge in self._graph.get(here, {}).items():
                if other in path:
                    continue
                total = so_far + self._cost(here, other, edge)
                left = must - {other}
                bound = self._least(total, hops + 1, other, left)
                if bound < inf:
                    heappush(heap, (bound, next(tickets), total, (*path, other), left))
        return None

    def _least(self, so_far: float, hops: int, here: str, must: frozenset[str]) -> float:
        """No less than what the whole way costs; infinite when it would be too long."""
        if hops + self._far.remaining(here, must) > self._high:
            return inf
        return so_far + self._dear.remaining(here, must)


def disjoint_pair(graph: Graph, start: str, goal: str, cost: Cost) -> tuple[Path, Path] | None:
    """Two ways that share no link and are cheapest together, the cheaper first (Suurballe 1974).

    There are meshes in which the cheapest way blocks every second one, and two others exist.
    """
    known, came = distances(graph, start, cost)
    if known.get(goal, inf) == inf or start == goal:
        return None
    first = _back(came, goal)[::-1]
    taken = set(pairwise(first))

    def reduced(here: str, other: str, edge: Edge) -> float:
        if (here, other) in taken:
            return inf
        if (other, here) in taken:
            return 0.0
        if known.get(other, inf) == inf:
            return inf
        return max(0.0, cost(here, other, edge) + known[here] - known[other])

    again, came = distances(graph, start, reduced)
    if again.get(goal, inf) == inf:
        return None
    arcs = taken | set(pairwise(_back(came, goal)[::-1]))
    arcs = {(a, b) for a, b in arcs if (b, a) not in arcs}
    onward: dict[str, list[str]] = defaultdict(list)
    for here, other in sorted(arcs):
        onward[here].append(other)
    one, two = (_walk(onward, start, goal) for _ in range(2))
    if price(graph, two, cost) < price(graph, one, cost):
        one, two = two, one
    return one, two


def _walk(onward: dict[str, list[str]], here: str, goal: str) -> Path:
    path = [here]
    while here != goal:
        here = onward[here].pop()
        path.append(here)
    return path
