"""Which way a pair of nodes shall use, and which one stands by. Pure.

The standby shares as few links with the active way as the mesh allows, then as few nodes; so it is
free of all of them wherever that is possible. Where the best way blocks every second one, two others
are taken, if the active one costs at most `DEARER` times the best.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Final

from nodes.manager.metrics import METRICS, width
from nodes.manager.paths import Path, cheapest, constrained, disjoint_pair, price
from nodes.manager.topology import Link, link_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nodes.api import Policy
    from nodes.manager.paths import Cost
    from nodes.manager.topology import Edge, Graph

DEARER: Final = 2.0
SUSPECT: Final = 20.0  # s: a link under suspicion is used when there is no other
_SHARED_LINK: Final = 1e9  # more than the costs of all nodes of a path together …
_SHARED_NODE: Final = 1e6  # … and this more than those of all links


@dataclass(frozen=True, slots=True)
class Conditions:
    """A policy, with keys for names, and what this pair has found out itself."""

    policy: Policy
    must: frozenset[str] = frozenset()
    avoid: frozenset[str] = frozenset()
    suspects: frozenset[Link] = frozenset()


@dataclass(frozen=True, slots=True)
class Choice:
    active: Path
    standby: Path | None
    shared: int  # links that both use


@dataclass(frozen=True, slots=True)
class _Charges:
    """What is charged on top of a metric."""

    links: Mapping[Link, float] = field(default_factory=dict)
    nodes: Mapping[str, float] = field(default_factory=dict)  # half on the way in, half out


def links(path: Iterable[str]) -> frozenset[Link]:
    return frozenset(link_of(a, b) for a, b in pairwise(path))


def choose(graph: Graph, start: str, goal: str, conditions: Conditions) -> Choice | None:
    """Both ways for a pair, None when the mesh has none."""
    active = best(graph, start, goal, conditions)
    if active is None:
        return None
    standby = stand_in(graph, active, conditions)
    shared = len(links(active) & links(standby)) if standby else len(active) - 1
    choice = Choice(active, standby, shared)
    if not shared or conditions.must or conditions.policy.min_hops > 1:
        return choice
    cost = cost_of(conditions)
    pair = disjoint_pair(graph, start, goal, cost)
    if pair is None or max(map(len, pair)) - 1 > conditions.policy.max_hops:
        return choice
    if price(graph, pair[0], cost) > DEARER * price(graph, active, cost):
        return choice
    return Choice(pair[0], pair[1], 0)


def best(graph: Graph, start: str, goal: str, conditions: Conditions) -> Path | None:
    """The best way by the policy."""
    cost = cost_of(conditions)
    if conditions.policy.metric != "widest":
        return _find(graph, start, goal, cost, conditions)
    widths = sorted({width(edge) for near in graph.values() for edge in near.values()})
    found = None
    low, high = 0, len(widths) - 1
    while low <= high:  # what is possible with wide links is with narrower ones
        middle = (low + high) // 2
        path = _find(graph, start, goal, _no_narrower(cost, widths[middle]), conditions)
        if path is None:
            high = middle - 1
        else:
            found, low = path, middle + 1
    return found


def stand_in(graph: Graph, active: Sequence[str], conditions: Conditions) -> Path | None:
    """The way beside `active`; None when there is none but `active` itself."""
    charges = _Charges(
        dict.fromkeys(links(active), _SHARED_LINK),
        dict.fromkeys(active[1:-1], _SHARED_NODE / 2),
    )
    path = _find(graph, active[0], active[-1], cost_of(conditions, charges), conditions)
    return None if path is None or path == list(active) else path


def score(graph: Graph, path: Sequence[str], conditions: Conditions) -> tuple[int, float]:
    """How good a way is now: lower is better, the first number before the second."""
    cost = price(graph, path, cost_of(conditions))
    if conditions.policy.metric != "widest" or cost == inf:
        return 0, cost
    return -min(width(graph[a][b]) for a, b in pairwise(path)), cost


def cost_of(conditions: Conditions, charges: _Charges | None = None) -> Cost:
    """What a link costs this pair."""
    metric = METRICS[conditions.policy.metric]
    on_links = dict.fromkeys(conditions.suspects, SUSPECT)
    on_nodes = dict.fromkeys(conditions.avoid, inf)
    if charges is not None:
        for link, charge in charges.links.items():
            on_links[link] = on_links.get(link, 0.0) + charge
        for key, charge in charges.nodes.items():
            on_nodes[key] = on_nodes.get(key, 0.0) + charge
    if not on_links and not on_nodes:
        return lambda _here, _other, edge: metric(edge)

    def cost(here: str, other: str, edge: Edge) -> float:
        return (
            metric(edge)
            + on_links.get(edge.link, 0.0)
            + on_nodes.get(here, 0.0)
            + on_nodes.get(other, 0.0)
        )

    return cost


def _no_narrower(cost: Cost, least: int) -> Cost:
    return lambda here, other, edge: inf if width(edge) < least else cost(here, other, edge)


def _find(graph: Graph, start: str, goal: str, cost: Cost, conditions: Conditions) -> Path | None:
    policy = conditions.policy
    path = cheapest(graph, start, goal, cost)
    if path is None or _fits(path, conditions):
        return path
    return constrained(
        graph,
        start,
        goal,
        cost,
        min_hops=policy.min_hops,
        max_hops=policy.max_hops,
        must=conditions.must,
    )


def _fits(path: Path, conditions: Conditions) -> bool:
    policy = conditions.policy
    hops = len(path) - 1
    return policy.min_hops <= hops <= policy.max_hops and conditions.must <= set(path)
