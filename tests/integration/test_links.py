"""Links between two transports over real sockets: how they come up, carry and end."""

import asyncio
import os
import random
import socket

import pytest

from bus.sockets import new_keypair
from nodes import wire
from nodes.errors import CannotListen
from nodes.links.base import Link, Packet
from nodes.wire import FrameType
from tests.support.linked import Node, data, linked, node, until

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
        # What needs no order goes over the control connection, whatever stands on the others.
        for label, lane in ((1, 15), (8, 0)):
            assert a.link.full(label, lane) is (connections == 0)  # a frame or more waits
            assert a.link.connection(label, lane) == 0
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


# Addresses ---------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("where", "dialled"),
    [
        ("tcp://[::1]:0", "[::1]"),
        ("tcp://[::]:0", "[::1]"),
        ("tcp://[::]:0", "127.0.0.1"),
        ("tcp://*:0", "127.0.0.1"),
    ],
)
@MODES
async def test_links_stand_over_ipv4_and_ipv6_alike(
    connections: int, where: str, dialled: str
) -> None:
    if "[" in where and not has_ipv6():
        with pytest.raises(CannotListen, match="cannot listen for neighbours"):
            Node(new_keypair(), connections, where)
        return
    with node(connections) as a, node(connections, where) as b:
        port = b.endpoint.rpartition(":")[2]
        await a.transport.dial(f"tcp://{dialled}:{port}", b.pair.public)
        await until(lambda: b.links)
        for end, other in ((a, b), (b, a)):
            end.link.send(data(1), b"payload" * 1000)
            await until(lambda other=other: other.heard)
            assert end.link.connection(7, 1) == (1 + 8 % connections if connections else 0)
