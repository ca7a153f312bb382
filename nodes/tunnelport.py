"""What an app holds of the TUN device that it handed to its node: peers, figures, events."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from nodes import local

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

MAX_EVENTS: Final = 256  # that nobody has taken; then the oldest are dropped

TunnelEvent = local.TunnelEvent
TunnelStats = local.TunnelStats
PeerStats = local.PeerStats


class Connection(Protocol):
    """The connection to the node that the tunnel belongs to."""

    async def set_peer(self, target: str, prefixes: Sequence[str]) -> None: ...

    async def tunnel_stats(self) -> local.TunnelStats: ...

    async def untunnel(self) -> None: ...

    def raise_if_lost(self) -> None: ...


class Tunnel:
    """A TUN device whose packets the node moves. It ends with the connection to the node."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name  # of the device
        self._connection = connection
        self._came: deque[local.TunnelEvent] = deque(maxlen=MAX_EVENTS)
        self._news = asyncio.Event()
        self._over = False

    async def set_peer(self, target: str, prefixes: Sequence[str]) -> None:
        """Send what is for `prefixes` to the node `target` (name or Z85 key), and take it from there.

        Replaces what was said of this peer before; without prefixes it is no peer any more. A key
        needs not be reachable yet: the "up" event says when it is. Raises Unreachable for a name
        that nobody knows, NodeError for a prefix that is none or is another peer's, NodeLost.
        """
        await self._connection.set_peer(target, prefixes)

    async def stats(self) -> local.TunnelStats:
        """What went through so far. Raises NodeLost."""
        return await self._connection.tunnel_stats()

    async def events(self) -> AsyncIterator[local.TunnelEvent]:
        """What changes: peers that come and go, offload that is lowered. Raises NodeLost."""
        while True:
            while self._came:
                yield self._came.popleft()
            if self._over:
                self._connection.raise_if_lost()
                return
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        """The node closes the device; it vanishes unless somebody else holds it."""
        if not self._over:
            self.put(None)
            await self._connection.untunnel()

    def put(self, event: local.TunnelEvent | None) -> None:
        """Something happened, or None: nothing will any more."""
        if event is None:
            self._over = True
        else:
            self._came.append(event)
        self._news.set()
