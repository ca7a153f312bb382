"""A link to one neighbour: a control connection over ZeroMQ and, by choice, data connections over TCP.

A link is up when all its connections are, and down as soon as one of them is: while it is up it
loses nothing. What happens with a link that is down is the affair of who owns it.
"""

from __future__ import annotations

import contextlib
import secrets
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from nodes import wire
from nodes.links import heads, tcp
from nodes.links.base import Metrics
from nodes.links.entrance import Approach
from nodes.links.estimate import RoundTrip, Throughput
from nodes.links.heads import LineKeys, Opener, Sealer
from nodes.links.packet import OF_THE_LINK, expect_no_hello
from nodes.links.tcpline import TcpLine
from nodes.wire import FrameType, WireError

if TYPE_CHECKING:
    import asyncio
    import socket

    from bus.egress import Egress
    from nodes.links.base import Account, LinkOwner, Packet
    from nodes.links.entrance import Entrance
    from nodes.links.zmqline import ZmqLine

DEAD_AFTER: Final = 3  # ticks of 1 s without a frame
FEW_DATAGRAMS: Final = (
    64 * 1024
)  # bytes that may wait before those of this node: a burst, not a queue
MAX_DATAGRAMS: Final = 1 << 20  # bytes kept on a control connection, beyond which they are dropped
SMALL: Final = 256  # bytes: an acknowledgement has 72
MAX_SMALL: Final = 16 << 20
_DATA: Final = wire.VERSION << 4 | FrameType.DATA
_ALIVE: Final = wire.head(FrameType.ALIVE)


class Surroundings(Protocol):
    """What a link needs of the transport it belongs to."""

    key: str
    name: str
    owner: LinkOwner
    loop: asyncio.AbstractEventLoop
    buffer: memoryview  # into which data connections read
    connections: int  # for data, at most; 0: all goes over ZeroMQ
    entrance: Entrance | None
    egress: Egress

    def count(self, what: str) -> None: ...

    def came_up(self, link: NeighbourLink) -> None: ...

    def went_down(self, link: NeighbourLink, reason: str) -> None:
        """Called once for each link, also when it never was up."""
        ...


class State(Enum):
    GREETING = "greeting"  # HELLO is to come
    JOINING = "joining"  # the data connections are
    UP = "up"
    DOWN = "down"


class NeighbourLink:
    """See the module and nodes.links.base.Link."""

    def __init__(
        self, around: Surroundings, control: ZmqLine, neighbour: str, *, dialled: bool
    ) -> None:
        self.neighbour = neighbour
        self.name = ""
        self.dialled = dialled
        self.state = State.GREETING
        self.control = control
        self.was_up = False
        self.socket: socket.socket | None = None  # a copy of the control connection's
        self._around = around
        self._secret = secrets.token_bytes(heads.SECRET_BYTES)
        self._keys: LineKeys | None = None
        self._lines: list[TcpLine] = []  # by number, once all are there
        self._joining: dict[int, TcpLine] = {}
        self._approaches: list[Approach] = []
        self._count = 0  # of data connections
        self._silent = 0  # ticks since the last frame came
        self._round_trip = RoundTrip()
        self._throughput = Throughput()

    # The interface ------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.state is State.UP

    def connection(self, label: int, lane: int) -> int:
        ordered = 1 <= lane <= wire.DATA_LANES
        return 1 + (label + lane) % self._count if self._count and ordered else 0

    def full(self, label: int, lane: int) -> bool:
        if lane == wire.DATAGRAM_LANE:
            return self.control.kept > FEW_DATAGRAMS
        number = self.connection(label, lane) if self._lines else 0  # there are none at its end
        return (self._lines[number - 1] if number else self.control).blocked

    def room(self, head: bytes) -> int:
        if self._lines and head[0] == _DATA and 1 <= head[1] <= wire.DATA_LANES:
            return self._line(head).room
        return self.control.room

    def send(self, head: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        if self._lines and head[0] == _DATA and 1 <= head[1] <= wire.DATA_LANES:
            self._line(head).send(head, payload)
        elif not self._drops(head, len(payload)):
            self.control.send(head, payload)

    def forward(self, head: bytes, packet: Packet, account: Account) -> None:
        if self._lines and head[0] == _DATA and 1 <= head[1] <= wire.DATA_LANES:
            self._line(head).send(head, packet.payload, account)
        elif not self._drops(head, len(packet.payload)):
            self.control.forward(head, packet, account)

    def metrics(self) -> Metrics:
        lines: list[ZmqLine | TcpLine] = [self.control, *self._joining.values()]
        flow = self._throughput
        return Metrics(
            rtt=self._round_trip.shortest,
            rttvar=self._round_trip.variation,
            retransmits=flow.retransmits,
            bytes_in=sum(line.bytes_in for line in lines),
            bytes_out=sum(line.bytes_out for line in lines),
            rate=flow.rate,
            queued=sum(line.kept for line in lines) + flow.unsent,
        )

    def cut(self, reason: str) -> None:
        if self.state is not State.DOWN:
            self._around.loop.call_soon(self.fail, reason)

    def _drops(self, head: bytes, size: int) -> bool:
        """A datagram for which there is no room is better lost than late.

        Small ones have more: among them are the acknowledgements, without which a session counts
        its route as dead.
        """
        room = MAX_DATAGRAMS if size > SMALL else MAX_SMALL
        full = head[1] == wire.DATAGRAM_LANE and self.control.kept > room
        if full:
            self._around.count("datagram_dropped")
        return full

    def _line(self, head: bytes) -> TcpLine:
        lines = self._lines
        return lines[(int.from_bytes(head[4:8], "big") + head[1]) % len(lines)]

    # Its beginning and its end ------------------------------------------------------------------

    def hello(self) -> bytes:
        """What this side says first."""
        around = self._around
        port = around.entrance.port if around.entrance is not None else 0
        return wire.hello(around.key, around.name, around.connections, port, self._secret)

    def greeted(self, hello: wire.Hello) -> None:
        """The neighbour's HELLO came: go on to the data connections, if there are to be any."""
        around = self._around
        self.name = hello.name
        self._silent = 0
        entrance = around.entrance
        can = hello.port if self.dialled else entrance is not None
        self._count = min(around.connections, hello.connections) if can else 0
        if not self._count:
            self._came_up()
            return
        self.state = State.JOINING
        if self.dialled:
            self._keys = LineKeys(around.key, self.neighbour, (self._secret, hello.secret))
            self._dial(hello.port)
        else:
            self._keys = LineKeys(self.neighbour, around.key, (hello.secret, self._secret))
            if entrance is not None:
                entrance.expect(self._keys.id, self)

    def fail(self, reason: str) -> None:
        """The link has ended."""
        if self.state is not State.DOWN:
            self.close()
            self._around.went_down(self, reason)

    def close(self) -> None:
        """End all connections and tell nobody."""
        self.state = State.DOWN
        for approach in self._approaches:
            approach.close()
        for line in self._joining.values():
            line.close()
        self._lines = []
        if self._keys is not None and self._around.entrance is not None:
            self._around.entrance.forget(self._keys.id)
        self.control.end()
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def tick(self, now: float) -> None:
        """Once a second: say that we live, see whether the neighbour does, and measure."""
        self._silent += 1
        if self._silent > DEAD_AFTER:
            joining = self.state is State.JOINING
            what = "data connection from it" if joining else "sign of life"
            self.fail(f"no {what} for {DEAD_AFTER} s")
            return
        if self.state is State.UP and not self.control.blocked:
            self.control.send(wire.head(FrameType.PING, counter=self._round_trip.ask(now)))
        sockets = [(-1, self.socket)] if self.socket is not None else []
        sockets += [(number, line.sock) for number, line in self._joining.items()]
        self._throughput.sample([(number, tcp.info(sock)) for number, sock in sockets], 1.0)

    def _came_up(self) -> None:
        if self.state in {State.UP, State.DOWN}:
            return
        self._lines = [self._joining[number] for number in range(self._count)]
        self.state = State.UP
        self.was_up = True
        self._around.came_up(self)

    # Data connections ---------------------------------------------------------------------------

    def _dial(self, port: int) -> None:
        where = self._address(port)
        keys = self._keys
        if where is None or keys is None:
            self.cut("its address is not known, so no data connection can be made")
            return
        for number in range(self._count):
            sealer = Sealer(keys.from_dialler(number))
            first = heads.first_message(keys, number, sealer)
            ends = sealer, Opener(keys.from_listener(number))

            def done(
                sock: socket.socket, number: int = number, ends: tuple[Sealer, Opener] = ends
            ) -> None:
                self._joining[number] = self._new_line(sock, number, ends)

            approach = Approach(where, first, done, self.fail, self._around.egress)
            self._approaches.append(approach)

    def _address(self, port: int) -> tuple[str, int] | tuple[str, int, int, int] | None:
        """Where the neighbour takes data connections: at the address of the control connection."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                host, _, *rest = self.socket.getpeername()
                return (host, port, *rest)  # IPv6 has a scope too
        return None

    def line_arrived(self, sock: socket.socket, number: int, proof: bytes) -> None:
        """See nodes.links.entrance.Expecting."""
        keys = self._keys
        if keys is None or number >= self._count or number in self._joining:
            raise WireError(f"no data connection {number} is due")
        opener = Opener(keys.from_dialler(number))
        heads.check_proof(opener, proof)
        tcp.prepare(sock)
        ends = Sealer(keys.from_listener(number)), opener
        line = self._joining[number] = self._new_line(sock, number, ends)
        line.opened = True
        line.send(_ALIVE, b"")
        self._silent = 0
        if len(self._joining) == self._count:
            self._came_up()

    def _new_line(self, sock: socket.socket, number: int, ends: tuple[Sealer, Opener]) -> TcpLine:
        around = self._around
        return TcpLine(self, sock, ends, (number, self._count), around.loop, around.buffer)

    def line_opened(self, line: TcpLine) -> None:  # noqa: ARG002 - it is the count that matters
        """The listener has let a connection in."""
        self._silent = 0
        if sum(line.opened for line in self._joining.values()) == self._count:
            self._came_up()

    def line_received(self, packet: Packet) -> None:
        self._silent = 0
        if self.state is State.JOINING:
            self._other_is_up()
        self._around.owner.received(self, packet)

    def line_writable(self, line: TcpLine) -> None:
        if self.state is State.UP:
            self._around.owner.writable(self, 1 + line.number)

    def line_lost(self, line: TcpLine, reason: str) -> None:
        if "protocol" in reason:
            self._around.count("broke_protocol")
        self.fail(f"data connection {line.number}: {reason}")

    # The control connection ---------------------------------------------------------------------

    def received(self, packet: Packet) -> None:
        """A frame came over the control connection; raises WireError."""
        self._silent = 0
        kind = packet.type
        if kind in OF_THE_LINK:
            self._of_the_link(packet)
            return
        if self.state is State.JOINING:
            self._other_is_up()
        if self._lines and kind == FrameType.DATA and 1 <= packet.lane <= wire.DATA_LANES:
            raise WireError(f"lane {packet.lane} on the control connection")
        self._around.owner.received(self, packet)

    def _of_the_link(self, packet: Packet) -> None:
        expect_no_hello(packet.type)
        if packet.type == FrameType.PING and not self.control.blocked:
            self.control.send(wire.head(FrameType.PONG, counter=packet.counter))
        elif packet.type == FrameType.PONG:
            self._round_trip.answered(packet.counter, monotonic())

    def _other_is_up(self) -> None:
        """The listener speaks before this side has heard that all its connections are let in."""
        if not self.dialled or len(self._joining) < self._count:
            raise WireError("a frame before the link was up")
        self._came_up()

    def control_writable(self) -> None:
        if self.state is State.UP:
            self._around.owner.writable(self, 0)
