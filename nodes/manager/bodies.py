"""What a request to the manager must not contain, whatever it asks, and who is meant in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus import Refused
from bus.identity import is_key, short
from nodes import api

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from bus import Request
    from nodes.manager.topology import Node, Topology


def must_be_keys(texts: Iterable[str]) -> None:
    """What is no key would be shown to people; raises Refused."""
    if not all(map(is_key, texts)):
        raise Refused(400, "bad_body", "a node is named by 40 characters that are no key in Z85")


def guarded(
    handler: Callable[[Request], Awaitable[bytes]],
) -> Callable[[Request], Awaitable[bytes]]:
    async def handle(request: Request) -> bytes:
        try:
            return await handler(request)
        except api.BadBody as error:
            raise Refused(400, "bad_body", str(error)) from None

    return handle


def find(topology: Topology, target: str) -> Node:
    """A node by name or key; raises Refused."""
    node = topology.find(target)
    if node is None:
        known = ", ".join(sorted(node.name for node in topology.nodes.values())[:20])
        text = f"no node {target!r} is registered (there are: {known or 'none'})"
        raise Refused(404, "unknown_node", text)
    return node


def name_of(topology: Topology, key: str) -> str:
    """What a node calls itself, else a short form of its key."""
    node = topology.nodes.get(key)
    if node is not None:
        return node.name
    return short(key) if is_key(key) else "?"
