"""Meshes for the tests of the manager's core: nodes are letters, links pairs of letters."""

from nodes.api import LinkState, Registration
from nodes.manager.topology import Topology


def report(
    key: str, *neighbours: str, rtt: float | None = 0.01, rate: float | None = None, auto: int = 0
) -> Registration:
    """What a node reports; it is named like its key in capitals."""
    links = [LinkState(other, rtt=rtt, rate=rate) for other in neighbours]
    return Registration(key.upper(), f"tcp://{key}", bytes(16), 0, 0, links, auto_peers=auto)


def network(*links: str, delays: dict[str, float] | None = None) -> Topology:
    """From links like "ab", each 10 ms long unless `delays` say otherwise."""
    topology = Topology()
    for key in sorted(set("".join(links))):
        topology.register(key, report(key), 0.0)
    return relink(topology, *links, delays=delays)


def relink(
    topology: Topology, *links: str, delays: dict[str, float] | None = None, now: float = 0.0
) -> Topology:
    """All nodes report these links and no others."""
    for key, node in sorted(topology.nodes.items()):
        states = [
            LinkState(b if a == key else a, rtt=(delays or {}).get(a + b, 0.01))
            for a, b in links
            if key in (a, b)
        ]
        topology.register(key, Registration(node.name, node.endpoint, bytes(16), 0, 0, states), now)
    return topology
