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
from nodes.links import tcp
from nodes.links.neighbour import NeighbourLink, State, Surroundings
from nodes.links.packet import Received
from nodes.links.zmqline import ZmqLine
from nodes.wire import FrameType, WireError

if TYPE_CHECKING:
    from bus.sockets import Socket

FRAMES_PER_TURN: Final = 32
CONTROL_LOWAT: Final = 16 * 1024  # bytes in the kernel; what is urgent shall not stand in line
_RETRY: Final = 0.005  # s; a look at a full link in case its edge was swallowed
_SNDMORE: Final = 2  # ZMQ_SNDMORE
_FAILED: Final = bus_sockets.HANDSHAKE_FAILED | bus_sockets.HANDSHAKE_REFUSED


class Ports(Surroundings, Protocol):
    """What a port needs of the transport it belongs to."""

    def claim(self, link: NeighbourLink) -> bool:
        """The neighbour said HELLO: whether this is to be the link to it."""
        ...

    def forget(self, port: Port) -> None: ...


class Port:
    """One ZeroMQ socket in the event loop: turns, and frames that were kept."""

    def __init__(self, transport: Ports, socket: Socket) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._fd = bus_sockets.descriptor(socket)
        self._blocked: list[ZmqLine] = []
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

    def links(self) -> list[NeighbourLink]:
        """Those whose neighbour has said HELLO."""
        raise NotImplementedError

    def drop(self, line: ZmqLine) -> None:
        raise NotImplementedError

    def blocked(self, line: ZmqLine) -> None:
        self._blocked.append(line)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._retry is not None:
                self._retry.cancel()
            self._loop.remove_reader(self._fd)
            bus_sockets.close(self._socket)

    def hand_over(self, line: ZmqLine, frame: Frame) -> None:
        """Give a frame to its link; who breaks the protocol is cut."""
        line.bytes_in += len(frame)
        try:
            line.link.received(Received.of_frame(frame))
        except WireError as error:
            self._transport.count("broke_protocol")
            line.link.fail(f"it broke the protocol: {error}")

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
        more = True
        try:
            more = self._read_some()
            more |= self._flush()
        finally:  # whatever a frame did to its owner, the next ones are read
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
        for line in self._blocked.copy():
            if self._closed:
                return False
            moved |= line.flush()
            if not line.blocked:
                self._blocked.remove(line)
                if line.alive:
                    line.link.control_writable()
        return moved


class Listener(Port):
    """The ROUTER: many neighbours, told apart by routing id and proved by User-Id."""

    def __init__(self, transport: Ports, socket: Socket) -> None:
        self._by_rid: dict[bytes, NeighbourLink] = {}
        self._proof: dict[bytes, str] = {}  # rid -> User-Id: key and number of the connection
        self._descriptors: dict[int, NeighbourLink] = {}
        self._monitor = bus_sockets.watch(socket)
        super().__init__(transport, socket)
        self._loop.add_reader(bus_sockets.descriptor(self._monitor), self._watch)
        self._watch()

    def transmit(self, rid: bytes, data: bytes | Frame) -> None:
        self._socket.send(rid, DONTWAIT | _SNDMORE)
        self._send(data)

    def links(self) -> list[NeighbourLink]:
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
            self.hand_over(link.control, packet)
        else:  # a routing id is a secret of its owner; here somebody else has taken it over
            self._refuse(packet, "foreign_routing_id")
            link.fail("another connection took its routing id")

    def drop(self, line: ZmqLine) -> None:
        link = self._by_rid.pop(line.rid, None)
        self._proof.pop(line.rid, None)
        for number, other in list(self._descriptors.items()):
            if other is link:
                del self._descriptors[number]
        if link is not None and link.socket is not None:
            _shut(link.socket)

    def close(self) -> None:
        if not self._closed:
            self._loop.remove_reader(bus_sockets.descriptor(self._monitor))
            super().close()
            self._monitor.close(linger=0)

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
        line = ZmqLine(self, rid)
        link = line.link = NeighbourLink(self._transport, line, key, dialled=False)
        descriptor = int(packet.get(SRCFD))
        link.socket = _copy(descriptor)
        self._by_rid[rid] = link
        self._proof[rid] = proof
        self._descriptors[descriptor] = link
        if self._transport.claim(link):
            line.send(link.hello())
            link.greeted(hello)

    def _refuse(self, packet: Frame, reason: str) -> None:
        self._transport.count(reason)
        while packet.more:
            packet = self._socket.recv(DONTWAIT, copy=False)
        with contextlib.suppress(ZMQError):
            copy = _copy(int(packet.get(SRCFD)))
            if copy is not None:
                with copy:
                    _shut(copy)

    def _watch(self) -> None:
        for event in bus_sockets.events(self._monitor):
            if event.kind == bus_sockets.DISCONNECTED:
                link = self._descriptors.pop(event.value, None)
                if link is not None:
                    link.fail("the connection ended")
            elif event.kind & _FAILED:
                self._transport.count("handshake_failed")


class Dialler(Port):
    """A DEALER: one neighbour."""

    def __init__(self, transport: Ports, socket: Socket, neighbour: str) -> None:
        self._line = ZmqLine(self, b"")
        self.link = NeighbourLink(transport, self._line, neighbour, dialled=True)
        self._line.link = self.link
        self._monitor = bus_sockets.watch(socket)
        super().__init__(transport, socket)
        self._loop.add_reader(bus_sockets.descriptor(self._monitor), self._watch)
        self._watch()

    def transmit(self, rid: bytes, data: bytes | Frame) -> None:  # noqa: ARG002
        self._send(data)

    def links(self) -> list[NeighbourLink]:
        return [self.link] if self.link.state in {State.JOINING, State.UP} else []

    def read(self) -> None:
        packet = self._socket.recv(DONTWAIT, copy=False)
        if packet.more:
            self.link.fail("it sent a message of several parts")
        elif self.link.state is State.GREETING:
            self._first(packet)
        else:
            self.hand_over(self._line, packet)

    def drop(self, line: ZmqLine) -> None:  # noqa: ARG002 - there is only one
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._loop.remove_reader(bus_sockets.descriptor(self._monitor))
            super().close()
            self._monitor.close(linger=0)
            self._transport.forget(self)

    def _first(self, packet: Frame) -> None:
        hello = _hello(packet)
        if hello is None or hello.key != self.link.neighbour:
            self.link.fail("it did not say HELLO as a node of this version does")
        elif self._transport.claim(self.link):
            self.link.greeted(hello)

    def _watch(self) -> None:
        for event in bus_sockets.events(self._monitor):
            if self._closed:
                return
            if event.kind == bus_sockets.CONNECTED:
                self.link.socket = _copy(event.value)
            elif event.kind == bus_sockets.HANDSHAKE_SUCCEEDED:
                self._line.send(self.link.hello())
            elif event.kind == bus_sockets.HANDSHAKE_REFUSED:
                self.link.fail("it does not admit this node's key")
            elif event.kind in {bus_sockets.DISCONNECTED, bus_sockets.CLOSED}:
                self.link.fail("the connection ended")


def _hello(packet: Frame) -> wire.Hello | None:
    try:
        first = Received.of_frame(packet)
        return wire.parse_hello(first.payload) if first.type == FrameType.HELLO else None
    except WireError:
        return None


def _copy(descriptor: int) -> sockets.socket | None:
    """A copy of a connection of libzmq, whose figures can be read and options set."""
    try:
        copy = sockets.socket(fileno=os.dup(descriptor))
    except OSError:
        return None
    tcp.prepare(copy, lowat=CONTROL_LOWAT)
    return copy


def _shut(copy: sockets.socket) -> None:
    """Shut a connection of libzmq down; libzmq itself then closes it."""
    with contextlib.suppress(OSError):
        copy.shutdown(sockets.SHUT_RDWR)
