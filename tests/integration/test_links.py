"""Links between two transports over real sockets: how they come up, carry, end and are attacked."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import pytest

from bus import KeyPair
from bus.sockets import new_context, new_keypair
from nodes import wire
from nodes.errors import CannotListen
from nodes.links import entrance, heads
from nodes.links.base import Link, Packet
from nodes.links.heads import LineKeys, Sealer
from nodes.links.neighbour import NeighbourLink
from nodes.links.zeromq import DATA_CONNECTIONS, Transport
from nodes.wire import FrameType, WireError


@dataclass
class Node:
    """A transport and its owner, which writes down what it hears."""

    pair: KeyPair
    connections: int
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
        self.endpoint = self.transport.listen("tcp://127.0.0.1:0")

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
def node(connections: int = DATA_CONNECTIONS) -> Iterator[Node]:
    made = Node(new_keypair(), connections)
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


MODES = pytest.mark.parametrize("connections", [0, 1, 4], ids=["curve", "one", "four"])


@MODES
async def test_frames_arrive_whole_and_in_order_of_their_label_and_lane(connections: int) -> None:
    seeded = random.Random(3)
    sent = [
        (seeded.randint(1, 4), seeded.randint(1, 9), seeded.randbytes(seeded.randint(0, 65_600)))
        for _ in range(200)
    ]
    async with linked(connections, connections) as (a, b):
        for counter, (lane, label, payload) in enumerate(sent):
            a.link.send(data(counter, lane, label), payload)
            b.link.send(data(counter, lane, label), payload)
        for end in (a, b):
            await until(lambda end=end: len(end.heard) == len(sent))
            for key in {(lane, label) for lane, label, _ in sent}:
                got = [(n, body) for _, ln, lb, n, body in end.heard if (ln, lb) == key]
                assert got == [
                    (n, body) for n, (ln, lb, body) in enumerate(sent) if (ln, lb) == key
                ]


@MODES
async def test_whatever_is_not_an_ordered_frame_travels_on_the_control_connection(
    connections: int,
) -> None:
    heads_sent = [
        data(1, lane=0),
        data(2, lane=15),
        wire.head(FrameType.CLOSE, 7),
        wire.head(FrameType.HANDSHAKE, 7),
        wire.head(FrameType.PROBE, 7, 9),
        wire.head(FrameType.ECHO, 7, 9),
    ]
    async with linked(connections, connections) as (a, b):
        before = b.link.control.bytes_in
        for head in heads_sent:
            a.link.send(head, b"payload")
        await until(lambda: len(b.heard) == len(heads_sent))
        assert [wire.head(k, lb, n, lane=ln) for k, ln, lb, n, _ in b.heard] == heads_sent
        assert b.link.control.bytes_in - before == sum(len(head) + 7 for head in heads_sent)


@MODES
async def test_a_relay_passes_frames_of_either_driver_on(connections: int) -> None:
    class Account:
        kept = 0

    with node() as a, node() as relay, node(connections) as b:
        await a.transport.dial(relay.endpoint, relay.pair.public)
        await relay.transport.dial(b.endpoint, b.pair.public)
        await until(lambda: len(relay.links) == 2 and b.links)
        onward, account = relay.links[b.pair.public], Account()

        def pass_on(link: Link, packet: Packet) -> None:
            head = wire.head(packet.type, 99, packet.counter, lane=packet.lane)
            onward.forward(head, packet, account)

        relay.received = pass_on  # type: ignore[method-assign]
        payload = os.urandom(65_000)
        for counter in range(300):
            a.link.send(data(counter), payload)
        a.link.send(data(0, lane=15), b"datagram")
        await until(lambda: len(b.heard) == 301)
        ordered = [heard for heard in b.heard if heard[1] == 1]
        assert ordered == [(FrameType.DATA, 1, 99, n, payload) for n in range(300)]
        assert account.kept == 0


@MODES
async def test_a_neighbour_that_does_not_read_fills_one_connection_only(connections: int) -> None:
    async with linked(connections, connections) as (a, b):
        sent = 0
        while not a.link.full(7, 1):  # both ends run in this loop: nobody reads meanwhile
            a.link.send(data(sent), bytes(65_536))
            sent += 1
        assert a.link.full(8, 1) is (connections < 2)
        assert a.link.metrics().queued > 0
        await until(lambda: not a.link.full(7, 1))
        assert a.room == [a.link.connection(7, 1)]
        await until(lambda: len(b.heard) == sent)
        assert a.link.metrics().queued == 0


async def test_datagrams_that_find_no_room_are_dropped_and_counted() -> None:
    async with linked() as (a, b):
        for counter in range(200):
            a.link.send(data(counter, lane=15), bytes(60_000))
        dropped = a.transport.counters["datagram_dropped"]
        assert 0 < dropped < 200
        a.link.send(wire.head(FrameType.CLOSE, 7), b"urgent")
        a.link.send(data(200, lane=15), bytes(72))  # as large as an acknowledgement
        await until(lambda: len(b.heard) == 202 - dropped)


async def test_an_owner_that_stumbles_over_a_frame_hears_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with linked() as (a, b):
        heard = b.received
        b.received = lambda _link, _packet: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        a.link.send(data(1, lane=0), b"bad luck")
        await until(lambda: "ZeroDivisionError" in caplog.text)
        b.received = heard  # type: ignore[method-assign]
        a.link.send(data(2, lane=0), b"good")
        await until(lambda: b.heard)


async def test_one_side_that_wants_no_data_connections_gets_none() -> None:
    for near, far in ((0, 4), (4, 0), (2, 4)):
        async with linked(near, far) as (a, b):
            assert a.link.connection(7, 1) == b.link.connection(7, 1)
            assert (a.link.connection(7, 1) == 0) is (min(near, far) == 0)
            a.link.send(data(1), b"x")
            await until(lambda b=b: b.heard)


async def test_a_ping_a_second_measures_the_round_trip() -> None:
    async with linked() as (a, b):
        a.transport.tick()
        await until(lambda: a.link.metrics().rtt is not None)
        assert 0 < (a.link.metrics().rtt or 0) < 10
        assert b.link.metrics().rtt is None


async def test_a_silent_neighbour_is_dead_after_three_ticks() -> None:
    async with linked() as (a, b):
        b.link._of_the_link = lambda _packet: None  # type: ignore[method-assign]
        for _ in range(4):
            a.transport.tick()
        assert a.down == ["no sign of life for 3 s"]
        await until(lambda: b.down)


async def test_a_link_lives_while_its_neighbour_answers() -> None:
    async with linked() as (a, b):
        for _ in range(8):
            heard = a.link.control.bytes_in
            a.transport.tick()
            b.transport.tick()
            await until(lambda heard=heard: a.link.control.bytes_in > heard)
        assert a.down == b.down == []


@pytest.mark.parametrize("victim", ["control", "data"])
async def test_a_lost_connection_is_a_lost_link_at_both_ends(victim: str) -> None:
    async with linked() as (a, b):
        link = a.link
        if victim == "data":
            link._lines[2].sock.shutdown(socket.SHUT_RDWR)
        else:
            assert link.socket is not None
            link.socket.shutdown(socket.SHUT_RDWR)
        await until(lambda: a.down and b.down)
        assert not link.alive
        link.send(data(1), b"into the void")
        await a.transport.dial(b.endpoint, b.pair.public)
        await until(lambda: b.links)
        a.link.send(data(1), b"again")
        await until(lambda: b.heard)


async def test_cutting_a_link_ends_it_at_both_ends_and_leaves_no_descriptor() -> None:
    with node() as a, node() as b:
        count = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(5):
            await a.transport.dial(b.endpoint, b.pair.public)
            await until(lambda: b.links)
            a.link.cut("enough")
            await until(lambda: not a.links and not b.links)
        assert a.down == ["enough"] * 5

        def settled() -> bool:
            return len(os.listdir("/proc/self/fd")) <= count + 1  # noqa: PTH208

        await until(settled)


async def test_when_both_dial_one_link_stays_and_both_know_which() -> None:
    for _ in range(5):
        with node() as a, node() as b:
            await asyncio.gather(
                a.transport.dial(b.endpoint, b.pair.public),
                b.transport.dial(a.endpoint, a.pair.public),
                return_exceptions=True,
            )
            await until(lambda a=a, b=b: a.links and b.links)
            smaller = a if a.pair.public < b.pair.public else b
            await until(lambda s=smaller: s.links and s.link.dialled)
            a.link.send(data(1), b"x")
            await until(lambda b=b: b.heard)


async def test_a_neighbour_that_dials_again_replaces_its_link() -> None:
    async with linked() as (a, b):
        old = a.link
        await a.transport.dial(b.endpoint, b.pair.public)
        await until(lambda: b.down)
        assert a.link is not old
        assert b.down == ["replaced by a newer link"]


async def test_an_owner_that_refuses_a_frame_cuts_the_link() -> None:
    for lane in (0, 1):
        async with linked() as (a, b):
            b.shocked = True
            a.link.send(data(1, lane), b"x")
            await until(lambda b=b: b.down)
            assert "protocol" in b.down[0]
            assert b.transport.counters["broke_protocol"] == 1


async def test_data_on_the_control_connection_of_a_link_that_has_others_cuts_it() -> None:
    async with linked() as (a, b):
        a.link.control.send(data(1), b"x")
        await until(lambda: b.down)
        assert "lane 1 on the control connection" in b.down[0]


async def test_a_data_port_that_is_taken_is_named() -> None:
    with node() as a, node() as b, pytest.raises(CannotListen, match=f":{a.door[1]}:"):
        b.transport.listen("tcp://127.0.0.1:0", a.door[1])


# Strangers at the data port ----------------------------------------------------------------------


async def ended(sock: socket.socket) -> None:
    """Wait until the other side has closed."""
    loop = asyncio.get_running_loop()
    sock.settimeout(0)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(sock, 4096):
                pass
    sock.close()


async def call(door: tuple[str, int], said: bytes = b"") -> socket.socket:
    sock = socket.create_connection(door)
    sock.settimeout(0)
    if said:
        await asyncio.get_running_loop().sock_sendall(sock, said)
    return sock


async def still_works(a: Node, b: Node) -> None:
    heard = len(b.heard)
    a.link.send(data(1), b"alive")
    await until(lambda: len(b.heard) > heard)
    assert a.down == b.down == []


FIRST = heads.PREAMBLE.pack(heads.MAGIC, bytes(16), 0) + bytes(36)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "data_nonsense"),
        (os.urandom(4000), "data_nonsense"),
        (b"VSM1" + FIRST[4:], "data_nonsense"),
        (FIRST, "data_unproved"),
        (heads.MAGIC + os.urandom(200), "data_unproved"),
    ],
    ids=["http", "random", "version-1", "no-such-link", "random-after-magic"],
)
async def test_a_stranger_at_the_data_port_is_hung_up_on(said: bytes, why: str) -> None:
    async with linked() as (a, b):
        await ended(await call(b.door, said))
        assert b.transport.counters[why] == 1
        await still_works(a, b)


async def test_whoever_knows_the_id_but_not_the_keys_gets_nowhere() -> None:
    with node() as a, node() as b:
        dialling = asyncio.ensure_future(  # noqa: TID251 - it is met half-way
            a.transport.dial(b.endpoint, b.pair.public)
        )
        await until(lambda: b.transport._links)
        (link,) = b.transport._links.values()
        keys = link._keys
        assert keys is not None
        forged = LineKeys(a.pair.public, b.pair.public, (bytes(32), bytes(32)))
        proof = Sealer(forged.from_dialler(0)).seal(wire.head(FrameType.ALIVE), 0)
        preamble = heads.PREAMBLE.pack(heads.MAGIC, keys.id, 0)
        await ended(await call(b.door, preamble + proof))
        await dialling
        await until(lambda: b.links)
        await still_works(a, b)


async def test_a_first_message_that_is_played_again_is_worth_nothing() -> None:
    async with linked() as (a, b):
        keys = b.link._keys
        assert keys is not None
        for number in (0, 3, 4, 2**32 - 1):
            again = heads.first_message(keys, number, Sealer(keys.from_dialler(number)))
            await ended(await call(b.door, again))
        assert b.transport.counters["data_unproved"] == 4
        await still_works(a, b)


async def test_bytes_injected_into_a_data_connection_end_the_link_and_change_nothing() -> None:
    async with linked() as (a, b):
        a.link.send(data(1), b"good")
        await until(lambda: b.heard)
        a.link._lines[0].sock.send(os.urandom(100))
        await until(lambda: b.down)
        assert len(b.heard) == 1


async def test_a_caller_that_says_too_little_is_hung_up_on_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entrance, "PATIENCE", 0.05)
    async with linked() as (a, b):
        for said in (b"", b"V", FIRST[:-1]):
            await ended(await call(b.door, said))
        assert b.transport.counters["data_late"] == 3
        await still_works(a, b)


async def test_a_flood_of_connections_keeps_only_few_and_no_neighbour_out() -> None:
    with node() as a, node() as b:
        flood = []
        for _ in range(entrance.MAX_OF_ADDRESS * 3):
            flood.append(await call(b.door))
            await asyncio.sleep(0)
        await until(lambda: b.transport.counters["data_flood"] >= entrance.MAX_OF_ADDRESS)
        assert b.transport.entrance is not None
        assert len(b.transport.entrance._strangers) <= entrance.MAX_OF_ADDRESS
        await a.transport.dial(b.endpoint, b.pair.public)
        await until(lambda: b.links)
        await still_works(a, b)
        for sock in flood:
            sock.close()
