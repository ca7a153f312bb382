"""All links of a node: listens, dials, keeps one link for each neighbour."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import zmq

from bus import sockets as bus_sockets
from bus.egress import Egress
from bus.zap import ZapHandler
from nodes import wire
from nodes.errors import CannotListen
from nodes.links.entrance import Entrance
from nodes.links.ports import Dialler, Listener, Port
from nodes.links.tcpline import BUFFER

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus import KeyPair
    from bus.sockets import Context, Socket
    from nodes.links.base import LinkOwner
    from nodes.links.neighbour import NeighbourLink

DOMAIN: Final = "mesh"
DATA_CONNECTIONS: Final = 4  # of a link: one flow that lost a segment holds up a quarter of all
SEND_FRAMES: Final = 8  # inside libzmq, for each neighbour: enough to keep it busy, little delay
RECEIVE_FRAMES: Final = 16
HANDSHAKE_MS: Final = 4000
_ZAP_ENFORCE_DOMAIN: Final = 93  # ZMQ_ZAP_ENFORCE_DOMAIN, without it a missing handler admits all


class Transport:
    """All links of one node. `admits(key)` says who may dial in; `counters` count misuse.

    `connections` is how many data connections a link has at most: with 0 all goes over ZeroMQ. The
    connections belong to `egress`; those of ZeroMQ, if the context was made with it.
    """

    def __init__(
        self,
        context: Context,
        keypair: KeyPair,
        name: str,
        owner: LinkOwner,
        admits: Callable[[str], bool],
        *,
        connections: int = DATA_CONNECTIONS,
        egress: Egress | None = None,
    ) -> None:
        self.key = keypair.public
        self.name = name
        self.owner = owner
        self.connections = connections
        self.egress = egress or Egress()
        self.counters: Counter[str] = Counter()
        self.loop = asyncio.get_running_loop()
        self.buffer = memoryview(bytearray(BUFFER if connections else 0))
        self.entrance: Entrance | None = None
        self.endpoint = ""  # where neighbours dial
        self._context = context
        self._keypair = keypair
        self._zap = ZapHandler(context, {DOMAIN: lambda key, _address: admits(key)})
        self._ports: list[Port] = []
        self._links: dict[str, NeighbourLink] = {}
        self._dialling: dict[NeighbourLink, asyncio.Future[None]] = {}
        self.loop.add_reader(self._zap.fileno(), self._admit)
        self._admit()

    def listen(self, endpoint: str, data_port: int = 0) -> str:
        """Bind; returns the endpoint with its real port, also in `endpoint`. Raises CannotListen.

        Data connections are taken on the same address at `data_port`, 0 being any free one.
        """
        socket = self._socket(zmq.ROUTER, endpoint)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a routing id is a secret: newest is right
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a full or gone neighbour is an error
        socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(_ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        try:
            with self.egress:
                socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise CannotListen(
                f"cannot listen for neighbours on {endpoint}: {error.strerror}"
            ) from None
        bound = bus_sockets.bound_endpoint(socket)
        host = _host(bound)
        if self.connections and host:
            try:
                self.entrance = Entrance(host, data_port, self.count, self.egress)
            except CannotListen:
                socket.close(linger=0)
                raise
        self._ports.append(Listener(self, socket))
        self.endpoint = bound
        return bound

    async def dial(self, endpoint: str, neighbour: str, patience: float = 5.0) -> None:
        """Connect to a neighbour; returns when the link is up. Raises ConnectionError."""
        socket = self._socket(zmq.DEALER, endpoint)
        socket.setsockopt(zmq.ROUTING_ID, b"\x01" + os.urandom(16))
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_MS)
        try:
            socket.setsockopt_string(zmq.CURVE_SERVERKEY, neighbour)
            port = Dialler(self, socket, neighbour)
            self._ports.append(port)
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            bus_sockets.close(socket)
            raise ConnectionError(f"cannot dial {endpoint}: {error.strerror}") from None
        up = self._dialling[port.link] = self.loop.create_future()
        try:
            async with asyncio.timeout(patience):
                await up
        except TimeoutError:
            raise ConnectionError(f"no answer from {endpoint} within {patience:g} s") from None
        finally:
            del self._dialling[port.link]
            if not up.done() or up.cancelled():
                port.link.fail("it was given up")

    def link(self, neighbour: str) -> NeighbourLink | None:
        """The link to a neighbour, if it is up."""
        found = self._links.get(neighbour)
        return found if found is not None and found.alive else None

    def tick(self) -> None:
        """Once a second."""
        now = time.monotonic()  # finer than the loop's, which may count milliseconds
        for port in self._ports.copy():
            for link in port.links():
                link.tick(now)

    def close(self) -> None:
        if self.entrance is not None:
            self.entrance.close()
        for link in list(self._links.values()):
            link.close()
        for port in self._ports.copy():
            port.close()
        self.loop.remove_reader(self._zap.fileno())
        self._zap.close()

    # For the ports ------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        self.counters[what] += 1

    def forget(self, port: Port) -> None:
        if port in self._ports:
            self._ports.remove(port)

    def claim(self, link: NeighbourLink) -> bool:
        """One link for each neighbour. When both dialled at once, the smaller key's call stays."""
        held = self._links.get(link.neighbour)
        if held is not None:
            if held.dialled != link.dialled and self._caller(held) < self._caller(link):
                link.fail("there is a link already")
                return False
            held.fail("replaced by a newer link")
        self._links[link.neighbour] = link
        return True

    def came_up(self, link: NeighbourLink) -> None:
        self.owner.link_up(link)
        up = self._dialling.get(link)
        if up is not None and not up.done():
            up.set_result(None)

    def went_down(self, link: NeighbourLink, reason: str) -> None:
        if self._links.get(link.neighbour) is link:
            del self._links[link.neighbour]
        up = self._dialling.get(link)
        if up is not None and not up.done():
            up.set_exception(ConnectionError(reason))
        if link.was_up:
            self.owner.link_down(link, reason)

    def _caller(self, link: NeighbourLink) -> str:
        return self.key if link.dialled else link.neighbour

    def _socket(self, kind: int, endpoint: str) -> Socket:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        if "[" in endpoint:  # else libzmq would take an IPv4 address for an IPv6 one
            socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME + bus_sockets.CURVE_OVERHEAD)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.SNDHWM, SEND_FRAMES)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_FRAMES)
        socket.setsockopt_string(zmq.CURVE_PUBLICKEY, self._keypair.public)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, self._keypair.secret)
        return socket

    def _admit(self) -> None:
        if self._zap.drain():
            self.loop.call_soon(self._admit)


def _host(endpoint: str) -> str:
    """The address in a bound TCP endpoint; empty for other transports."""
    scheme, _, rest = endpoint.partition("://")
    return rest.rpartition(":")[0].strip("[]") if scheme == "tcp" else ""
