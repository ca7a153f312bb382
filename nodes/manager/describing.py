"""The mesh as the manager sees it, for people: replies to mesh.nodes and mesh.why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nodes import api
from nodes.manager import weighing

if TYPE_CHECKING:
    from nodes.manager.pairs import Pair
    from nodes.manager.planner import Planner
    from nodes.manager.topology import Topology


def nodes(topology: Topology, planner: Planner, look: api.Look) -> api.Nodes:
    age = time.time() - time.monotonic()
    infos = [
        api.NodeInfo(
            node.name,
            node.key,
            node.endpoint,
            sorted(topology.graph[node.key]),
            node.since + age,
            sorted(node.links.keys() - topology.graph[node.key].keys()),
        )
        for node in topology.nodes.values()
    ]
    routes = [
        api.RouteInfo(route.name, list(route.path), route is pair.active, route.since + age)
        for pair in (planner.pairs.values() if look.routes else ())
        for route in pair.routes
    ]
    edges = [
        api.EdgeInfo(*edge.link, edge.rtt, edge.rate, edge.load, edge.retransmits, edge.flaps)
        for edge in (topology.edges() if look.edges else ())
    ]
    most = api.MAX_TOLD
    left = max(0, len(routes) - most) + max(0, len(edges) - most)
    return api.Nodes(infos, routes[:most], edges[:most], left)


def why(topology: Topology, planner: Planner, pair: Pair | None) -> api.Why:
    if pair is None:
        return api.Why(api.Policy(), by_hand=False, problem="nobody has asked for a route here")
    return api.Why(
        pair.conditions.policy,
        pair.by_hand is not None,
        weighing.why(topology, pair, planner.conditions(pair)),
        pair.problem,
    )
