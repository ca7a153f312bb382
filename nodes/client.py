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

from nodes import local
from nodes.connection import NodeConnection, dial
from nodes.datagramport import DatagramPort, Received
from nodes.errors import (
    NodeAbsent,
    NodeError,
    NodeLost,
    PortTaken,
    StreamRefused,
    StreamReset,
    TunnelRefused,
    Unreachable,
)
from nodes.streams import Closed, Flow, Incoming, Listener, Opened, Stream
from nodes.tunnelport import PeerStats, Tunnel, TunnelEvent, TunnelStats
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from nodes.streams import Descriptor

__all__ = [
    "Closed",
    "Code",
    "DatagramPort",
    "Flow",
    "Incoming",
    "Listener",
    "Node",
    "NodeAbsent",
    "NodeError",
    "NodeLost",
    "Opened",
    "PeerStats",
    "PortTaken",
    "Received",
    "Stream",
    "StreamRefused",
    "StreamReset",
    "Tunnel",
    "TunnelEvent",
    "TunnelRefused",
    "TunnelStats",
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

    async def listen(self, port: int, allow: Collection[str] | None = None) -> Listener:
        """Take incoming streams for `port` of this node; raises PortTaken.

        Nodes whose keys are not in `allow` (None: all may) are refused before this app hears of it.
        """
        return await self._connection.listen(port, allow)

    async def bind(self, port: int = 0, allow: Collection[str] | None = None) -> DatagramPort:
        """Send and take datagrams at `port` of this node, 0 for one that is free; raises PortTaken.

        Ports of datagrams and of streams have nothing to do with each other. Datagrams of nodes
        whose keys are not in `allow` (None: all may) are dropped.
        """
        return await self._connection.bind(port, allow)

    async def vouch(self, port: int, statement: bytes) -> bytes:
        """Have the node sign what this app, which listens on `port`, says of itself (`nodes.offers`).

        Raises StreamReset (NO_LISTENER) when this app does not listen there.
        """
        return await self._connection.vouch(port, statement)

    async def tunnel(
        self, descriptor: int, name: str, *, mtu: int, offload: local.Offload = "auto"
    ) -> Tunnel:
        """Have the node move the packets of a TUN device; one for each connection.

        The device was opened with IFF_TUN, IFF_NO_PI and IFF_VNET_HDR; the caller's own descriptor may
        be closed then, or kept: so the device stays when the node is gone. `offload` "off": no super-packets.
        Raises TunnelRefused, NodeLost.
        """
        return await self._connection.tunnel(descriptor, name, mtu, offload)

    async def open(
        self,
        target: str,
        port: int,
        greeting: bytes = b"",
        timeout: float = 10.0,
        early: bytes = b"",
    ) -> Opened:
        """Open a stream to `port` of the node `target` (its name or Z85 key).

        early: at most 32 KiB which go with the request, and so arrive a round trip sooner.

        Raises StreamRefused (the far app's own code and reply), StreamReset (nobody listens, too
        many streams, …), Unreachable (no such node, no route, no answer in time), NodeLost.
        """
        return await self._connection.open(target, port, greeting, timeout, early)

    async def connect(  # noqa: PLR0913 - those of `open` and of `attach`
        self,
        sock: Descriptor,
        target: str,
        port: int,
        greeting: bytes = b"",
        *,
        timeout: float = 10.0,
        early: bytes = b"",
        head: bytes = b"",
        idle: float = 0,
    ) -> Flow:
        """`open` and `attach` in one: a round trip with the node less, and no wake of this process.

        Once the far app has accepted, the node writes `head` (at most 4 KiB) to `sock` and moves the
        bytes between it and the stream; it is closed here. When it raises, as `open` does, `sock` is as
        it was. Cancelled, it is so, too, or it is closed: then the far app had accepted already, and the
        stream was reset.
        """
        number = self._connection.new_id()
        message = local.Connect(number, target, port, greeting, timeout, early, head, idle)
        return await self._connection.connect(sock, message)

    async def open_stream(
        self,
        target: str,
        port: int,
        greeting: bytes = b"",
        timeout: float = 10.0,
        early: bytes = b"",
    ) -> Stream:
        """As `open`, and this process reads and writes the bytes."""
        opened = await self.open(target, port, greeting, timeout, early)
        return await opened.stream()


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
