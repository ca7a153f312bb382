"""The mesh as the manager sees it, for people: replies to mesh.nodes and mesh.why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from nodes import api
from nodes.manager import weighing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nodes.manager.pairs import Ends
    from nodes.manager.planner import Planner
    from nodes.manager.topology import Topology

    Row = api.NodeInfo | api.RouteInfo | api.EdgeInfo
    Found = Iterator[tuple[str, Row, int]]  # where it stands, the row, bytes that it takes

PAGE: Final = 400_000  # bytes, and one row: a message holds 1 MiB
_ROW: Final = 160  # bytes of all but keys
_KEY: Final = 42  # bytes


def nodes(topology: Topology, planner: Planner, look: api.Look) -> api.Nodes:
    """A page of what there is: nodes, then routes, then edges, each in the order of their names."""
    page = api.Nodes([], [], [])
    room, last = PAGE, ""
    for place, row, size in _rows(topology, planner, look):
        if place <= look.after:
            continue
        if room <= 0:
            return api.Nodes(page.nodes, page.routes, page.edges, last)
        room, last = room - size, place
        match row:
            case api.NodeInfo():
                page.nodes.append(row)
            case api.RouteInfo():
                page.routes.append(row)
            case api.EdgeInfo():
                page.edges.append(row)
    return page


def _rows(topology: Topology, planner: Planner, look: api.Look) -> Found:
    """What comes after `look.after`, at least; the letters before the names are in order, too."""
    if look.after < "n~":
        yield from _nodes(topology)
    if look.routes and look.after < "r~":
        yield from _routes(planner)
    if look.edges:
        yield from _edges(topology)


def _nodes(topology: Topology) -> Found:
    age = time.time() - time.monotonic()
    for key, node in sorted(topology.nodes.items()):
        links = topology.graph[key]
        info = api.NodeInfo(
            node.name, key, node.endpoint, sorted(links), node.since + age,
            sorted(node.links.keys() - links.keys()),
        )  # fmt: skip
        size = _ROW + len(node.endpoint) * 4 + _KEY * len(node.links)
        yield f"n{key}", info, size


def _routes(planner: Planner) -> Found:
    age = time.time() - time.monotonic()
    found = [(r.name, r, r is p.active) for p in planner.pairs.values() for r in p.routes]
    for name, route, active in sorted(found, key=lambda one: one[0]):
        info = api.RouteInfo(name, list(route.path), active, route.since + age)
        yield f"r{name}", info, _ROW + _KEY * len(route.path)


def _edges(topology: Topology) -> Found:
    for edge in sorted(topology.edges(), key=lambda edge: edge.link):
        info = api.EdgeInfo(
            *edge.link, edge.rtt, edge.rate, edge.load, edge.retransmits, edge.flaps
        )
        yield f"s{edge.link[0]}{edge.link[1]}", info, _ROW + 2 * _KEY


def why(topology: Topology, planner: Planner, ends: Ends) -> api.Why:
    pair = planner.pairs.get(ends)
    wish = planner.wishes.of(ends)
    if pair is None:
        nobody = "nobody has asked for a route here"
        return api.Why(wish.policy, wish.by_hand is not None, problem=nobody)
    return api.Why(
        wish.policy,
        pair.by_hand is not None,
        weighing.why(topology, pair, planner.conditions(pair)),
        pair.problem,
    )
