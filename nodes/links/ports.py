"""ZeroMQ sockets in the event loop: the ROUTER that listens and the DEALERs that dialled.

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
from typing import TYPE_CHECKING, Final, Protocol

from bus import sockets as bus_sockets
from bus.sockets import DONTWAIT, SRCFD, Again, Frame, ZMQError
from nodes import wire
from nodes.links.packet import OF_THE_LINK, Received, expect_no_hello
from nodes.links.zmqlink import ZmqLink
from nodes.wire import FrameType, WireError

if TYPE_CHECKING:
    from bus.sockets import Socket
    from nodes.links.base import LinkOwner

FRAMES_PER_TURN: Final = 32
DEAD_AFTER: Final = 3  # ticks of 1 s without a frame
_RETRY: Final = 0.005  # s; a look at a full link in case its edge was swallowed
_SNDMORE: Final = 2  # ZMQ_SNDMORE
_FAILED: Final = bus_sockets.HANDSHAKE_FAILED | bus_sockets.HANDSHAKE_REFUSED
_ALIVE: Final = wire.head(FrameType.ALIVE)


class Ports(Protocol):
    """What a port needs of the transport it belongs to."""

    owner: LinkOwner
    hello: bytes

    def count(self, what: str) -> None: ...

    def came_up(self, port: Port, link: ZmqLink) -> None: ...

    def forget(self, port: Port) -> None: ...


class Port:
    """One ZeroMQ socket in the event loop: turns, kept frames, signs of life."""

    def __init__(self, transport: Ports, socket: Socket) -> None:
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

    def transmit(self, rid: bytes, data: bytes | Frame) -> None:
        raise NotImplementedError

    def read(self) -> None:
        """Receive one frame and pass it on; raises Again when there is none."""
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
            if link.quiet and not link.blocked:
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

    def hand_over(self, link: ZmqLink, frame: Frame) -> None:
        """Give a frame to the owner; who breaks the protocol is cut."""
        link.silent = 0
        link.bytes_in += len(frame)
        try:
            packet = Received.of_frame(frame)
            if packet.type in OF_THE_LINK:
                expect_no_hello(packet.type)
            else:
                self._owner.received(link, packet)
        except WireError as error:
            self._transport.count("broke_protocol")
            self.fail(link, f"it broke the protocol: {error}")

    def _send(self, data: bytes | Frame) -> None:
        # Our buffers are used again at once, so they are copied; received frames are shared.
        self._socket.send(data, DONTWAIT, copy=not isinstance(data, Frame))
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
        except Again:
            return False
        return True

    def _flush(self) -> bool:
        moved = False
        for link in self._blocked.copy():
            if self._closed:
                return False
            moved |= link.flush()
            if not link.blocked:
                self._blocked.remove(link)
                if link.alive:
                    self._owner.writable(link, 0)
        return moved


class Listener(Port):
    """The ROUTER: many neighbours, told apart by routing id and proved by User-Id."""

    def __init__(self, transport: Ports, socket: Socket) -> None:
        self._by_rid: dict[bytes, ZmqLink] = {}
        self._proof: dict[bytes, str] = {}  # rid -> User-Id: key and number of the connection
        self._descriptors: dict[int, ZmqLink] = {}
        self._monitor = bus_sockets.watch(socket)
        super().__init__(transport, socket)
        self._loop.add_reader(bus_sockets.descriptor(self._monitor), self._watch)
        self._watch()

    def transmit(self, rid: bytes, data: bytes | Frame) -> None:
        self._socket.send(rid, DONTWAIT | _SNDMORE)
        self._send(data)

    def links(self) -> list[ZmqLink]:
        return list(self._by_rid.values())

    def read(self) -> None:
        rid = self._socket.recv(DONTWAIT)
        packet = self._socket.recv(DONTWAIT, copy=False)
        if packet.more:
            self._refuse(packet, "more_than_one_part")
            return
        link = self._by_rid.get(rid)
        if link is None:
            self._first(rid, packet)
        elif packet.get("User-Id") == self._proof[rid]:
            self.hand_over(link, packet)
        else:  # a routing id is a secret of its owner; here somebody else has taken it over
            self._refuse(packet, "foreign_routing_id")
            self.fail(link, "another connection took its routing id")

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

    def _first(self, rid: bytes, packet: Frame) -> None:
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
        self._descriptors[int(packet.get(SRCFD))] = link
        link.send(self._transport.hello)
        self._transport.came_up(self, link)

    def _refuse(self, packet: Frame, reason: str) -> None:
        self._transport.count(reason)
        while packet.more:
            packet = self._socket.recv(DONTWAIT, copy=False)
        with contextlib.suppress(ZMQError):
            _shut(int(packet.get(SRCFD)))

    def _watch(self) -> None:
        for event in bus_sockets.events(self._monitor):
            if event.kind == bus_sockets.DISCONNECTED:
                link = self._descriptors.pop(event.value, None)
                if link is not None:
                    self.fail(link, "the connection ended")
            elif event.kind & _FAILED:
                self._transport.count("handshake_failed")


class Dialler(Port):
    """A DEALER: one neighbour."""

    def __init__(self, transport: Ports, socket: Socket, neighbour: str) -> None:
        self.link = ZmqLink(self, b"", neighbour, dialled=True)
        self.up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._monitor = bus_sockets.watch(socket)
        super().__init__(transport, socket)
        self._loop.add_reader(bus_sockets.descriptor(self._monitor), self._watch)
        self._watch()

    def transmit(self, rid: bytes, data: bytes | Frame) -> None:  # noqa: ARG002
        self._send(data)

    def links(self) -> list[ZmqLink]:
        return [self.link] if self.up.done() and self.link.alive else []

    def read(self) -> None:
        packet = self._socket.recv(DONTWAIT, copy=False)
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

    def _first(self, packet: Frame) -> None:
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


def _hello(packet: Frame) -> wire.Hello | None:
    try:
        first = Received.of_frame(packet)
        return wire.parse_hello(first.payload) if first.type == FrameType.HELLO else None
    except WireError:
        return None


def _shut(descriptor: int) -> None:
    """Shut a connection of libzmq down; libzmq itself then closes it."""
    with contextlib.suppress(OSError):
        copy = sockets.socket(fileno=os.dup(descriptor))
        with copy:
            copy.shutdown(sockets.SHUT_RDWR)
