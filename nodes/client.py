"""What apps use: streams through the mesh by way of the local node.

    async with connect_node(run_dir / "node-alpha.sock") as node:
        stream = await node.open_stream("beta", 80)
        await stream.write(b"hello")
        print(await stream.read())

An app that is only a gateway hands its TCP socket over with `attach` and is out of the path.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nodes.connection import NodeConnection, dial
from nodes.errors import (
    NodeAbsent,
    NodeError,
    NodeLost,
    PortTaken,
    StreamRefused,
    StreamReset,
    Unreachable,
)
from nodes.streams import Closed, Flow, Incoming, Listener, Opened, Stream
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nodes import local

__all__ = [
    "Closed",
    "Code",
    "Flow",
    "Incoming",
    "Listener",
    "Node",
    "NodeAbsent",
    "NodeError",
    "NodeLost",
    "Opened",
    "PortTaken",
    "Stream",
    "StreamRefused",
    "StreamReset",
    "Unreachable",
    "connect_node",
]


class Node:
    """An app's connection to its node: `key` and `name` are the node's."""

    def __init__(self, connection: NodeConnection, welcome: local.Welcome) -> None:
        self.key = welcome.key
        self.name = welcome.name
        self.lost = connection.lost  # an event, set when the node went away
        self._connection = connection

    async def listen(self, port: int) -> Listener:
        """Take incoming streams for `port` of this node; raises PortTaken."""
        return await self._connection.listen(port)

    async def vouch(self, port: int, statement: bytes) -> bytes:
        """Have the node sign what this app, which listens on `port`, says of itself (`nodes.offers`).

        Raises StreamReset (NO_LISTENER) when this app does not listen there.
        """
        return await self._connection.vouch(port, statement)

    async def open(
        self,
        target: str,
        port: int,
        greeting: bytes = b"",
        timeout: float = 10.0,
    ) -> Opened:
        """Open a stream to `port` of the node `target` (its name or Z85 key).

        Raises StreamRefused (the far app's own code and reply), StreamReset (nobody listens, too
        many streams, …), Unreachable (no such node, no route, no answer in time), NodeLost.
        """
        return await self._connection.open(target, port, greeting, timeout)

    async def open_stream(
        self,
        target: str,
        port: int,
        greeting: bytes = b"",
        timeout: float = 10.0,
    ) -> Stream:
        """As `open`, and this process reads and writes the bytes."""
        return await (await self.open(target, port, greeting, timeout)).stream()


@asynccontextmanager
async def connect_node(path: Path | str, name: str = "") -> AsyncIterator[Node]:
    """Connect to the node whose local socket is `path`; `name` tells it who we are.

    Raises NodeAbsent when no node answers there.
    """
    connection = await dial(path)
    try:
        yield Node(connection, await connection.hello(name))
    finally:
        connection.close()
