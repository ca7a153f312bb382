"""All ZeroMQ links of a node: listens, dials, keeps one link for each neighbour."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import TYPE_CHECKING, Final

import zmq

from bus import sockets as bus_sockets
from bus.zap import ZapHandler
from nodes import wire
from nodes.errors import CannotListen
from nodes.links.ports import Dialler, Listener, Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus import KeyPair
    from bus.sockets import Context, Socket
    from nodes.links.base import LinkOwner
    from nodes.links.zmqlink import ZmqLink

DOMAIN: Final = "mesh"
SEND_FRAMES: Final = 8  # inside libzmq, for each neighbour: enough to keep it busy, little delay
RECEIVE_FRAMES: Final = 16
HANDSHAKE_MS: Final = 4000
_ZAP_ENFORCE_DOMAIN: Final = 93  # ZMQ_ZAP_ENFORCE_DOMAIN, without it a missing handler admits all


class Transport:
    """All ZeroMQ links of one node. `admits(key)` says who may dial in; `counters` count misuse."""

    def __init__(
        self,
        context: Context,
        keypair: KeyPair,
        name: str,
        owner: LinkOwner,
        admits: Callable[[str], bool],
    ) -> None:
        self.owner = owner
        self.hello = wire.hello(keypair.public, name)
        self.counters: Counter[str] = Counter()
        self._context = context
        self._keypair = keypair
        self._loop = asyncio.get_running_loop()
        self._zap = ZapHandler(context, {DOMAIN: lambda key, _address: admits(key)})
        self._ports: list[Port] = []
        self._links: dict[str, tuple[Port, ZmqLink]] = {}
        self._loop.add_reader(self._zap.fileno(), self._admit)
        self._admit()

    def listen(self, endpoint: str) -> str:
        """Bind; returns the endpoint with its real port. Raises CannotListen."""
        socket = self._socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a routing id is a secret: newest is right
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a full or gone neighbour is an error
        socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(_ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise CannotListen(
                f"cannot listen for neighbours on {endpoint}: {error.strerror}"
            ) from None
        self._ports.append(Listener(self, socket))
        return bus_sockets.bound_endpoint(socket)

    async def dial(self, endpoint: str, neighbour: str, patience: float = 5.0) -> None:
        """Connect to a neighbour; returns when the link is up. Raises ConnectionError."""
        socket = self._socket(zmq.DEALER)
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
        try:
            async with asyncio.timeout(patience):
                await port.up
        except TimeoutError:
            raise ConnectionError(f"no answer from {endpoint} within {patience:g} s") from None
        finally:
            if not port.up.done() or port.up.cancelled():
                port.close()

    def link(self, neighbour: str) -> ZmqLink | None:
        found = self._links.get(neighbour)
        return found[1] if found else None

    def tick(self) -> None:
        for port in self._ports.copy():
            port.tick()

    def close(self) -> None:
        for port in self._ports.copy():
            port.close()
        self._loop.remove_reader(self._zap.fileno())
        self._zap.close()

    # For the ports ------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        self.counters[what] += 1

    def forget(self, port: Port) -> None:
        if port in self._ports:
            self._ports.remove(port)

    def came_up(self, port: Port, link: ZmqLink) -> None:
        """One link for each neighbour. When both dialled at once, the smaller key's call stays."""
        held = self._links.get(link.neighbour)
        if held is not None and held[1].alive:
            if held[1].dialled != link.dialled and self._caller(held[1]) < self._caller(link):
                port.fail(link, "there is a link already")
                return
            held[0].fail(held[1], "replaced by a newer link")
        self._links[link.neighbour] = (port, link)
        self.owner.link_up(link)

    def _caller(self, link: ZmqLink) -> str:
        return self._keypair.public if link.dialled else link.neighbour

    def _socket(self, kind: int) -> Socket:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME + bus_sockets.CURVE_OVERHEAD)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.SNDHWM, SEND_FRAMES)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_FRAMES)
        socket.setsockopt_string(zmq.CURVE_PUBLICKEY, self._keypair.public)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, self._keypair.secret)
        return socket

    def _admit(self) -> None:
        if self._zap.drain():
            self._loop.call_soon(self._admit)
