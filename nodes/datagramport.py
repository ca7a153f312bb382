"""What an app holds to send and take datagrams: a port of the node, and what came to it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from nodes import local
from nodes.errors import DatagramTooLarge, NodeError
from nodes.wire import MAX_DATAGRAM

if TYPE_CHECKING:
    from nodes.streams import Descriptor

MAX_WAITING: Final = 4 << 20  # bytes that came and nobody has taken; then the oldest are dropped
_OVERHEAD: Final = 256  # bytes, about, that one costs beside its data


class Connection(Protocol):
    """The connection to the node that the port belongs to."""

    async def send(self, message: local.FromApp, sock: Descriptor | None = None) -> None: ...

    async def unbind(self, port: int) -> None: ...

    def raise_if_lost(self) -> None: ...


class Received(NamedTuple):
    """A datagram: `origin` is the key of the node that sent it, proved; `port` its port there."""

    data: bytes
    origin: str
    port: int


class DatagramPort:
    """Datagrams from and to one port of the node.

    They may be lost, doubled by nobody, and come in any order; what is too much is dropped: by the node
    when the mesh has no room, and here (`dropped`) when nobody takes what came.
    """

    def __init__(self, connection: Connection, port: int) -> None:
        self.port = port
        self.dropped = 0
        self._connection = connection
        self._came: deque[Received] = deque()
        self._waiting = 0
        self._news = asyncio.Event()
        self._over = False

    async def send_to(self, target: str, port: int, data: bytes) -> None:
        """Send `data` (at most 60,000 bytes) to `port` of the node `target`, its name or Z85 key.

        Below 1,200 bytes the least is lost. Raises DatagramTooLarge, NodeLost; that it was dropped
        on the way nobody says.
        """
        if len(data) > MAX_DATAGRAM:
            raise DatagramTooLarge(
                f"datagram of {len(data)} bytes for port {port} of {target!r}: "
                f"send at most {MAX_DATAGRAM}, or open a stream"
            )
        await self._connection.send(local.Send(self.port, target, port, data))

    async def receive(self) -> Received:
        """The next datagram; raises NodeLost, and NodeError after `aclose`."""
        while not self._came:
            if self._over:
                self._connection.raise_if_lost()
                raise NodeError(f"datagram port {self.port} of this app was closed by it")
            self._news.clear()
            await self._news.wait()
        received = self._came.popleft()
        self._waiting -= len(received.data) + _OVERHEAD
        return received

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        try:
            return await self.receive()
        except NodeError:
            self._connection.raise_if_lost()
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Give the port back; the iteration ends."""
        self.put(None)
        await self._connection.unbind(self.port)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def put(self, received: Received | None) -> None:
        """A datagram came, or None: no more will."""
        if received is None:
            self._over = True
        else:
            self._came.append(received)
            self._waiting += len(received.data) + _OVERHEAD
            while self._waiting > MAX_WAITING:
                self._waiting -= len(self._came.popleft().data) + _OVERHEAD
                self.dropped += 1
        self._news.set()
