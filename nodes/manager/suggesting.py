"""Which links would serve the mesh, for nodes that take suggestions. Pure, and steady over time."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nodes.manager.topology import Node, Topology

SAMPLE: Final = 64  # nodes that are looked at for each suggestion


def suggest(topology: Topology, node: Node) -> list[Node]:
    """Nodes to which `node` should dial, at most as many as it still would take.

    Those with few links first, among them by a hash of both keys: so all do not choose the same,
    and each hears the same again. A mesh of random links falls apart least.
    """
    lacking = node.auto_peers - len(node.links)
    if lacking <= 0:
        return []
    able = [
        other
        for other in topology.nodes.values()
        if other.endpoint and other.key != node.key and other.key not in node.links
    ]
    able.sort(key=lambda other: _mix(node.key, other.key))
    return sorted(able[:SAMPLE], key=lambda other: len(topology.graph[other.key]))[:lacking]


def _mix(a: str, b: str) -> bytes:
    return blake2b(min(a, b).encode() + max(a, b).encode(), digest_size=8).digest()
