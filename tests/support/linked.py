"""Two transports of links over real sockets, whose owners write down what they hear."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from bus import KeyPair
from bus.sockets import new_context, new_keypair
from nodes import wire
from nodes.errors import CannotListen
from nodes.links.base import Link, Packet
from nodes.links.neighbour import NeighbourLink
from nodes.links.zeromq import DATA_CONNECTIONS, Transport
from nodes.wire import FrameType, WireError

LOOPBACK = "tcp://127.0.0.1:0"


@dataclass
class Node:
    """A transport and its owner, which writes down what it hears."""

    pair: KeyPair
    connections: int
    where: str = LOOPBACK
    links: dict[str, Link] = field(default_factory=dict)
    down: list[str] = field(default_factory=list)
    heard: list[tuple[int, int, int, int, bytes]] = field(default_factory=list)
    room: list[int] = field(default_factory=list)
    shocked: bool = False

    def __post_init__(self) -> None:
        self.context = new_context()
        self.transport = Transport(
            self.context, self.pair, "n", self, lambda _key: True, connections=self.connections
        )
        try:
            self.endpoint = self.transport.listen(self.where)
        except CannotListen:
            self.close()
            raise

    def link_up(self, link: Link) -> None:
        self.links[link.neighbour] = link

    def link_down(self, link: Link, reason: str) -> None:
        del self.links[link.neighbour]
        self.down.append(reason)

    def received(self, link: Link, packet: Packet) -> None:
        if self.shocked:
            raise WireError("not this")
        head = (packet.type, packet.lane, packet.label, packet.counter)
        self.heard.append((*head, bytes(packet.payload)))

    def writable(self, link: Link, connection: int) -> None:
        self.room.append(connection)

    @property
    def link(self) -> NeighbourLink:
        (link,) = self.links.values()
        assert isinstance(link, NeighbourLink)
        return link

    @property
    def door(self) -> tuple[str, int]:
        """Where data connections are taken."""
        assert self.transport.entrance is not None
        return ("127.0.0.1", self.transport.entrance.port)

    def close(self) -> None:
        self.transport.close()
        self.context.destroy(linger=0)


@contextlib.contextmanager
def node(connections: int = DATA_CONNECTIONS, where: str = LOOPBACK) -> Iterator[Node]:
    made = Node(new_keypair(), connections, where)
    try:
        yield made
    finally:
        made.close()


@contextlib.asynccontextmanager
async def linked(
    near: int = DATA_CONNECTIONS, far: int = DATA_CONNECTIONS
) -> AsyncIterator[tuple[Node, Node]]:
    with node(near) as a, node(far) as b:
        await a.transport.dial(b.endpoint, b.pair.public)
        await until(lambda: b.links)
        yield a, b


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def data(counter: int, lane: int = 1, label: int = 7) -> bytes:
    return wire.head(FrameType.DATA, label, counter, lane=lane)
