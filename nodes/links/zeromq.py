"""Links over ZeroMQ: one ROUTER where neighbours dial in, one DEALER for each dialled neighbour.

The rules (why, in docs/protocol/mesh.md):
- The neighbour is the key that CURVE proved: at the ROUTER the User-Id of every single frame.
- A socket's descriptor is edge-triggered: any send or receive may swallow an edge, so after each a
  turn is due, once per pass of the event loop.
- One DEALER is one connection. Whoever dialled dials again with a new socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as sockets
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

import zmq

from bus import sockets as bus_sockets
from bus.zap import ZapHandler
from nodes import wire
from nodes.errors import CannotListen
from nodes.wire import FrameType, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus import KeyPair
    from bus.sockets import Context, Socket
    from nodes.links.base import Account, LinkOwner, Packet

DOMAIN: Final = "mesh"
SEND_FRAMES: Final = 8  # inside libzmq, for each neighbour: enough to keep it busy, little delay
RECEIVE_FRAMES: Final = 16
FRAMES_PER_TURN: Final = 32
HANDSHAKE_MS: Final = 4000
DEAD_AFTER: Final = 3  # ticks of 1 s without a frame
MAX_BACKLOG: Final = 256 << 20  # bytes kept for a neighbour that does not read
_RETRY: Final = 0.005  # s; a look at a full link in case its edge was swallowed
_ZAP_ENFORCE_DOMAIN: Final = 93  # ZMQ_ZAP_ENFORCE_DOMAIN, without it a missing handler admits all
_ALIVE: Final = wire.frame(FrameType.ALIVE)


class ZmqLink:
    """See nodes.links.base.Link."""

    __slots__ = (
        "_backlog",
        "_kept",
        "_port",
        "_rid",
        "alive",
        "dialled",
        "full",
        "name",
        "neighbour",
        "quiet",
        "silent",
    )

    def __init__(self, port: _Port, rid: bytes, neighbour: str, *, dialled: bool) -> None:
        self.neighbour = neighbour
        self.name = ""
        self.dialled = dialled
        self.full = False
        self.alive = True
        self.silent = 0  # ticks since the last frame came
        self.quiet = True  # nothing was sent since the last tick
        self._port = port
        self._rid = rid
        self._backlog: deque[tuple[bytes | zmq.Frame, int, Account | None]] = deque()
        self._kept = 0

    @property
    def rid(self) -> bytes:
        return self._rid

    def send(self, data: bytes | memoryview) -> None:
        if self.full or not self._try(data):
            self._keep(bytes(data), len(data), None)

    def forward(self, packet: Packet, account: Account) -> None:
        if not isinstance(packet, zmq.Frame):
            self.send(packet.buffer)
        elif self.full or not self._try(packet):
            self._keep(packet, len(packet.buffer), account)

    def cut(self, reason: str) -> None:
        self._port.fail_later(self, reason)

    def flush(self) -> bool:
        """Send what was kept; True when something went out."""
        moved = False
        while self._backlog and self.alive:
            data, size, account = self._backlog[0]
            if not self._try(data):
                return moved
            self._backlog.popleft()
            self._kept -= size
            if account is not None:
                account.kept -= size
            moved = True
        self.full = False
        return True

    def discard(self) -> None:
        self.alive = self.full = False
        self._backlog.clear()

    def _try(self, data: bytes | memoryview | zmq.Frame) -> bool:
        self.quiet = False
        try:
            self._port.transmit(self._rid, data)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            self._port.fail_later(self, error.strerror or str(error))
        return True

    def _keep(self, data: bytes | zmq.Frame, size: int, account: Account | None) -> None:
        if not self.alive:
            return
        self._backlog.append((data, size, account))
        self._kept += size
        if account is not None:
            account.kept += size
        if not self.full:
            self.full = True
            self._port.blocked(self)
        if self._kept > MAX_BACKLOG:
            self._port.fail_later(self, "it does not read")


class _Port:
    """One ZeroMQ socket in the event loop: turns, kept frames, signs of life."""

    def __init__(self, transport: Transport, socket: Socket) -> None:
        self._transport = transport
        self._owner = transport.owner
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._fd = bus_sockets.descriptor(socket)
        self._blocked: list[ZmqLink] = []
        self._armed = False
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._fd, self._turn)
        self._arm()

    def transmit(self, rid: bytes, data: bytes | memoryview | zmq.Frame) -> None:
        raise NotImplementedError

    def read(self) -> None:
        """Receive one frame and pass it on; raises zmq.Again when there is none."""
        raise NotImplementedError

    def links(self) -> list[ZmqLink]:
        raise NotImplementedError

    def drop(self, link: ZmqLink) -> None:
        """Make the transport forget the connection behind `link`."""
        raise NotImplementedError

    def blocked(self, link: ZmqLink) -> None:
        self._blocked.append(link)

    def fail_later(self, link: ZmqLink, reason: str) -> None:
        if link.alive:
            self._loop.call_soon(self.fail, link, reason)

    def fail(self, link: ZmqLink, reason: str) -> None:
        """The link has ended: tell the owner once."""
        if not link.alive:
            return
        link.discard()
        self.drop(link)
        self._owner.link_down(link, reason)

    def tick(self) -> None:
        """Once a second: say that we live, and see who does not."""
        for link in self.links():
            if link.quiet and not link.full:
                link.send(_ALIVE)
            link.quiet = True
            link.silent += 1
            if link.silent > DEAD_AFTER:
                self.fail(link, f"no sign of life for {DEAD_AFTER} s")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._retry is not None:
                self._retry.cancel()
            self._loop.remove_reader(self._fd)
            bus_sockets.close(self._socket)

    def hand_over(self, link: ZmqLink, packet: zmq.Frame) -> None:
        """Give a frame to the owner; who breaks the protocol is cut."""
        link.silent = 0
        try:
            self._owner.received(link, packet)
        except WireError as error:
            self._transport.count("broke_protocol")
            self.fail(link, f"it broke the protocol: {error}")

    def _send(self, data: bytes | memoryview | zmq.Frame) -> None:
        # Our buffers are used again at once, so they are copied; received frames are shared.
        self._socket.send(data, zmq.DONTWAIT, copy=not isinstance(data, zmq.Frame))
        self._arm()

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._armed = False
        more = self._read_some()
        more |= self._flush()
        self._rest(more=more)

    def _rest(self, *, more: bool) -> None:
        """See to it that the next turn comes."""
        if self._closed:
            return
        if more or bus_sockets.readable(self._socket):
            self._arm()
        elif self._blocked and self._retry is None:
            self._retry = self._loop.call_later(_RETRY, self._look_again)

    def _look_again(self) -> None:
        self._retry = None
        self._turn()

    def _read_some(self) -> bool:
        try:
            for _ in range(FRAMES_PER_TURN):
                if self._closed:
                    return False
                self.read()
        except zmq.Again:
            return False
        return True

    def _flush(self) -> bool:
        moved = False
        for link in self._blocked.copy():
            if self._closed:
                return False
            moved |= link.flush()
            if not link.full:
                self._blocked.remove(link)
                if link.alive:
                    self._owner.writable(link)
        return moved


class _Listener(_Port):
    """The ROUTER: many neighbours, told apart by routing id and proved by User-Id."""

    def __init__(self, transport: Transport, socket: Socket) -> None:
        self._by_rid: dict[bytes, ZmqLink] = {}
        self._proof: dict[bytes, str] = {}  # rid -> User-Id: key and number of the connection
        self._descriptors: dict[int, ZmqLink] = {}
        self._monitor = bus_sockets.watch(socket)
        super().__init__(transport, socket)
        self._loop.add_reader(bus_sockets.descriptor(self._monitor), self._watch)
        self._watch()

    def transmit(self, rid: bytes, data: bytes | memoryview | zmq.Frame) -> None:
        self._socket.send(rid, zmq.DONTWAIT | zmq.SNDMORE)
        self._send(data)

    def links(self) -> list[ZmqLink]:
        return list(self._by_rid.values())

    def read(self) -> None:
        rid = self._socket.recv(zmq.DONTWAIT)
        packet = self._socket.recv(zmq.DONTWAIT, copy=False)
        if packet.more:
            self._refuse(packet, "more_than_one_part")
            return
        link = self._by_rid.get(rid)
        if link is None:
            self._first(rid, packet)
        elif packet.get("User-Id") == self._proof[rid]:
            self.hand_over(link, packet)
        else:  # a routing id is a secret of its owner; here somebody else uses it
            self._refuse(packet, "foreign_routing_id")

    def drop(self, link: ZmqLink) -> None:
        self._by_rid.pop(link.rid, None)
        self._proof.pop(link.rid, None)
        for number, other in list(self._descriptors.items()):
            if other is link:
                del self._descriptors[number]
                _shut(number)

    def close(self) -> None:
        if not self._closed:
            self._loop.remove_reader(bus_sockets.descriptor(self._monitor))
            super().close()

    def _first(self, rid: bytes, packet: zmq.Frame) -> None:
        """The first frame of a connection must be a HELLO in the name of the proved key."""
        proof = str(packet.get("User-Id"))
        key = proof.partition(" ")[0]
        hello = _hello(packet)
        if hello is None or len(rid) != 17 or rid[0] != 1 or hello.key != key:
            self._refuse(packet, "bad_hello")
            return
        # What the monitor has to say about an older connection with this descriptor comes first.
        self._watch()
        link = ZmqLink(self, rid, key, dialled=False)
        link.name = hello.name
        self._by_rid[rid] = link
        self._proof[rid] = proof
        self._descriptors[int(packet.get(zmq.SRCFD))] = link
        link.send(self._transport.hello)
        self._transport.came_up(self, link)

    def _refuse(self, packet: zmq.Frame, reason: str) -> None:
        self._transport.count(reason)
        while packet.more:
            packet = self._socket.recv(zmq.DONTWAIT, copy=False)
        with contextlib.suppress(zmq.ZMQError):
            _shut(int(packet.get(zmq.SRCFD)))

    def _watch(self) -> None:
        for event in bus_sockets.events(self._monitor):
            if event.kind == bus_sockets.DISCONNECTED:
                link = self._descriptors.pop(event.value, None)
                if link is not None:
                    self.fail(link, "the connection ended")
            elif event.kind in {bus_sockets.HANDSHAKE_REFUSED, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL}:
                self._transport.count("handshake_failed")


class _Dialler(_Port):
    """A DEALER: one neighbour."""

    def __init__(self, transport: Transport, socket: Socket, neighbour: str) -> None:
        self.link = ZmqLink(self, b"", neighbour, dialled=True)
        self.up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._said_hello = False
        self._monitor = bus_sockets.watch(socket)
        super().__init__(transport, socket)
        self._loop.add_reader(bus_sockets.descriptor(self._monitor), self._watch)
        self._watch()

    def transmit(self, rid: bytes, data: bytes | memoryview | zmq.Frame) -> None:  # noqa: ARG002
        self._send(data)

    def links(self) -> list[ZmqLink]:
        return [self.link] if self.up.done() and self.link.alive else []

    def read(self) -> None:
        packet = self._socket.recv(zmq.DONTWAIT, copy=False)
        if packet.more:
            self.fail(self.link, "it sent a message of several parts")
        elif self.up.done():
            self.hand_over(self.link, packet)
        else:
            self._first(packet)

    def drop(self, link: ZmqLink) -> None:  # noqa: ARG002 - there is only one
        self.close()

    def fail(self, link: ZmqLink, reason: str) -> None:
        if not self.up.done():
            link.discard()
            self.close()
            self.up.set_exception(ConnectionError(reason))
            return
        super().fail(link, reason)

    def close(self) -> None:
        if not self._closed:
            self._loop.remove_reader(bus_sockets.descriptor(self._monitor))
            super().close()
            self._transport.forget(self)

    def _first(self, packet: zmq.Frame) -> None:
        hello = _hello(packet)
        if hello is None or hello.key != self.link.neighbour:
            self.fail(self.link, "it did not say HELLO as a node of this version does")
            return
        self.link.name = hello.name
        self.up.set_result(None)
        self._transport.came_up(self, self.link)

    def _watch(self) -> None:
        for event in bus_sockets.events(self._monitor):
            if self._closed:
                return
            if event.kind == bus_sockets.HANDSHAKE_SUCCEEDED:
                self.link.send(self._transport.hello)
            elif event.kind == bus_sockets.HANDSHAKE_REFUSED:
                self.fail(self.link, "it does not admit this node's key")
            elif event.kind in {bus_sockets.DISCONNECTED, bus_sockets.CLOSED}:
                self.fail(self.link, "the connection ended")


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
        self._zap = ZapHandler(context, {DOMAIN: admits})
        self._ports: list[_Port] = []
        self._links: dict[str, tuple[_Port, ZmqLink]] = {}
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
        self._ports.append(_Listener(self, socket))
        return bus_sockets.bound_endpoint(socket)

    async def dial(self, endpoint: str, neighbour: str, patience: float = 5.0) -> None:
        """Connect to a neighbour; returns when the link is up. Raises ConnectionError."""
        socket = self._socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, b"\x01" + os.urandom(16))
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_MS)
        try:
            socket.setsockopt_string(zmq.CURVE_SERVERKEY, neighbour)
            port = _Dialler(self, socket, neighbour)
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

    def forget(self, port: _Port) -> None:
        if port in self._ports:
            self._ports.remove(port)

    def came_up(self, port: _Port, link: ZmqLink) -> None:
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


def _hello(packet: zmq.Frame) -> wire.Hello | None:
    data = packet.buffer
    try:
        kind, _, _ = wire.parse_frame(data)
        return wire.parse_hello(data[wire.FRAME.size :]) if kind == FrameType.HELLO else None
    except WireError:
        return None


def _shut(descriptor: int) -> None:
    """Shut a connection of libzmq down; libzmq itself then closes it."""
    with contextlib.suppress(OSError):
        copy = sockets.socket(fileno=os.dup(descriptor))
        with copy:
            copy.shutdown(sockets.SHUT_RDWR)
