"""Two nodes with a tunnel each, on links in memory: what goes through, what does not, who is told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.tunnel import records
from nodes.tunnel.hub import MAX_CHANGES
from nodes.tunnel.prefixes import BadPrefix
from nodes.tunnel.records import EVERYTHING, NOTHING, Takes
from nodes.tunnel.tunnel import FAILURES, SEEK_AFTER
from nodes.tunnel.vnet import TCP4, UNFINISHED, Shape
from nodes.wire import CONTROL_LANE
from tests.support.ip_packets import tcp4, udp4, udp6
from tests.support.memory_mesh import MemoryMesh, Nature
from tests.support.tunnels import End, MemoryDevice, TwoEnds, offloaded

CHECKSUM = Takes.CHECKSUM


@pytest.fixture
def ends() -> TwoEnds:
    made = TwoEnds()
    made.meet()
    return made


def back(payload: bytes = b"", **ends: str) -> bytes:
    return udp4(payload, **{"source": "10.9.0.2", "destination": "10.9.0.1", **ends})


def record(ends: TwoEnds, data: bytes, lane: int = 1) -> None:
    """Node a says something in its session with b that its own tunnel would not."""
    way = ends.mesh.engines["a"].lane(ends.key_b)
    assert way is not None
    way.send_record(lane, data)
    ends.run()


def test_both_are_told_that_the_other_is_there(ends: TwoEnds) -> None:
    assert ends.a.events == [("up", ends.key_b)]
    assert ends.b.events == [("up", ends.key_a)]
    assert ends.a.details == ["it takes checksum, tcp, udp, MTU 1420"]


def test_a_packet_comes_out_as_it_went_in(ends: TwoEnds) -> None:
    ends.a.device.send(udp4(b"hello"))
    ends.run()
    assert ends.b.device.written == [(bytes(10), udp4(b"hello"))]
    ends.b.device.send(back(b"hello yourself"))
    ends.a.device.send(udp6(b"six"))
    ends.run()
    assert ends.a.device.packets == [back(b"hello yourself")]
    assert ends.b.device.packets[1:] == [udp6(b"six")]


def test_a_super_packet_goes_whole_and_gets_a_header_of_its_own(ends: TwoEnds) -> None:
    large = tcp4(bytes(60_000))
    header = offloaded(TCP4, 1380)
    ends.a.device.send(large, vnet=header)
    ends.run()
    assert ends.b.device.written == [(header, large)]
    peer = ends.b.tunnel.peers[ends.key_a]
    assert (peer.packets_in, peer.bytes_in) == (1, len(large))


def test_small_packets_that_wait_together_travel_together(ends: TwoEnds) -> None:
    sent = [udp4(bytes([at]) * 30) for at in range(40)]
    before = ends.mesh.engines["b"].sessions[ends.key_a].incoming.expected[1:]
    ends.a.device.send(*sent)
    ends.run()
    after = ends.mesh.engines["b"].sessions[ends.key_a].incoming.expected[1:]
    assert sum(after) - sum(before) == 1
    assert ends.b.device.packets == sent


def test_packets_of_a_flow_stay_in_order_whatever_their_size(ends: TwoEnds) -> None:
    sizes = [10, 1300, 20, 60_000, 30, 1000, 60_000, 1, 2, 3]
    sent = [tcp4(bytes(size)) for size in sizes]
    for packet in sent:
        header = offloaded(TCP4, 1380) if len(packet) > 1420 else bytes(10)
        ends.a.device.waiting.append(header + packet)
    ends.a.device.send()
    ends.run()
    assert ends.b.device.packets == sent


def test_what_is_for_nobody_is_dropped_and_counted(ends: TwoEnds) -> None:
    ends.a.device.send(udp4(destination="10.9.0.77"), b"\x60" + bytes(30))
    ends.run()
    assert ends.b.device.packets == []
    assert ends.a.tunnel.dropped == {"no_peer": 1, "malformed": 1}


def test_a_packet_with_a_source_that_is_not_the_peers_is_not_written(ends: TwoEnds) -> None:
    ends.a.device.send(udp4(source="10.9.0.3"), udp6(source="fd09::3"), udp4(b"good"))
    ends.run()
    assert ends.b.device.packets == [udp4(b"good")]
    assert ends.b.losses(ends.key_a) == {"foreign_source": 2}


def test_a_peer_that_is_none_any_more_reaches_nobody(ends: TwoEnds) -> None:
    ends.b.peer(ends.key_a)
    ends.run()
    assert ends.a.events[-1] == ("down", ends.key_b)
    ends.a.device.send(udp4(b"lost"))
    ends.run()
    assert ends.b.device.packets == []
    assert ends.a.losses(ends.key_b) == {"down": 1}
    record(ends, records.packet(Shape(0, 0), udp4(b"forced")))
    assert ends.b.device.packets == []
    assert ends.mesh.engines["b"].counters["tunnel_no_peer"] == 1


def test_who_was_a_peer_first_hears_of_the_other_when_it_comes() -> None:
    ends = TwoEnds()
    ends.a.peer(ends.key_b, "10.9.0.2/32")
    ends.mesh.engines["a"].ping(ends.key_b, lambda _: None)
    ends.run(1)
    assert ends.a.events == ends.b.events == []
    ends.b.peer(ends.key_a, "10.9.0.1/32")
    ends.run(1)
    assert ends.a.events == [("up", ends.key_b)]
    assert ends.b.events == [("up", ends.key_a)]


def test_a_prefix_of_another_peer_is_refused_and_nothing_changes(ends: TwoEnds) -> None:
    with pytest.raises(BadPrefix, match="another peer's"):
        ends.a.peer("x" * 40, "10.9.0.2/32")
    assert set(ends.a.tunnel.peers) == {ends.key_b}
    ends.a.device.send(udp4(b"still"))
    ends.run()
    assert ends.b.device.packets == [udp4(b"still")]


def test_when_the_route_is_lost_the_peer_is_down_and_a_way_is_looked_for(ends: TwoEnds) -> None:
    ends.mesh.links["a", "b"].cut("the test cuts it")
    ends.run(2)
    assert ends.a.events[-1] == ("down", ends.key_b)
    for _ in range(20):
        ends.a.device.send(udp4(b"into nothing"))
    assert ends.a.sought == [ends.key_b]
    ends.run(SEEK_AFTER + 1)
    ends.a.device.send(udp4(b"again"))
    ends.run(SEEK_AFTER + 1)
    ends.a.device.send(udp4(b"not yet: it was in vain twice"))
    assert ends.a.sought == [ends.key_b] * 2
    ends.mesh.link("a", "b")
    ends.mesh.route("a", "b")
    ends.run(1)
    assert ends.a.events[-1] == ("up", ends.key_b)
    ends.a.device.send(udp4(b"there"))
    ends.run()
    assert ends.b.device.packets == [udp4(b"there")]


def test_when_a_relay_dies_no_packet_is_lost_doubled_or_swapped() -> None:
    mesh = MemoryMesh("a", "r", "s", "b", nature=Nature(delay=0.01, jitter=0.004, rate=10_000_000))
    for pair in (("a", "r"), ("r", "b"), ("a", "s"), ("s", "b")):
        mesh.link(*pair)
    mesh.route("a", "r", "b")
    mesh.route("a", "s", "b", standby=True)
    a, b = (End(mesh.engines[name], MemoryDevice()) for name in "ab")
    a.peer(mesh.key("b"), "10.9.0.2/32")
    b.peer(mesh.key("a"), "10.9.0.1/32")
    a.engine.ping(mesh.key("b"), lambda _: None)
    mesh.run(1)
    flows = [[udp4(at.to_bytes(2, "big"), port=port) for at in range(200)] for port in range(1, 9)]
    for at in range(200):
        a.device.send(*[flow[at] for flow in flows])
        mesh.run(0.001)
        if at == 100:
            mesh.links["r", "b"].cut("the relay dies")
            mesh.links["a", "r"].cut("the relay dies")
    mesh.run(5)
    came = b.device.packets
    assert [[packet for packet in came if packet in set(flow)] for flow in flows] == flows
    assert a.events == [("up", mesh.key("b"))]


def test_a_session_that_begins_anew_is_told_anew(ends: TwoEnds) -> None:
    ends.mesh.engines["b"].stop()
    ends.run(3)
    assert ends.a.events == [("up", ends.key_b), ("down", ends.key_b), ("up", ends.key_b)]
    ends.a.device.send(udp4(b"again"))
    ends.run()
    assert ends.b.device.packets == [udp4(b"again")]


def test_new_keys_change_nothing(ends: TwoEnds) -> None:
    ends.run(400)
    assert ends.a.events == [("up", ends.key_b)]
    ends.a.device.send(udp4(b"later"))
    ends.run()
    assert ends.b.device.packets == [udp4(b"later")]


def test_the_device_is_told_to_give_what_the_weakest_peer_takes() -> None:
    ends = TwoEnds(b=MemoryDevice(CHECKSUM))
    ends.meet()
    assert ends.a.events == [("up", ends.key_b), ("offload", ends.key_b)]
    assert ends.a.details[1] == "the device gives checksum from now on"
    assert ends.a.device.given[-1] == CHECKSUM
    assert ends.b.events == [("up", ends.key_a)]
    ends.a.device.send(tcp4(bytes(5000)), vnet=offloaded(TCP4, 1380))  # was under way in the kernel
    ends.run()
    assert [len(packet) for packet in ends.b.device.packets] == [1420, 1420, 1420, 900]
    assert ends.a.losses(ends.key_b) == {}
    ends.a.peer(ends.key_b)  # nobody weak any more
    assert ends.a.device.given[-1] == Takes.CHECKSUM | Takes.TCP | Takes.UDP


def test_of_several_peers_one_that_takes_less_does_not_slow_the_others_down() -> None:
    mesh = MemoryMesh("a", "b", "c")
    for other in "bc":
        mesh.link("a", other)
        mesh.route("a", other)
    a, weak, good = (
        End(mesh.engines[name], MemoryDevice(NOTHING if name == "b" else EVERYTHING))
        for name in "abc"
    )
    a.peer(mesh.key("b"), "10.9.0.2/32")
    a.peer(mesh.key("c"), "10.9.0.3/32")
    weak.peer(mesh.key("a"), "10.9.0.1/32")
    good.peer(mesh.key("a"), "10.9.0.1/32")
    for other in "bc":
        a.engine.ping(mesh.key(other), lambda _: None)
    mesh.run(1)
    assert [what for what, _ in a.events] == ["up", "up"]
    a.device.send(tcp4(bytes(5000)), vnet=offloaded(TCP4, 1380))
    a.device.send(tcp4(bytes(5000), destination="10.9.0.3"), vnet=offloaded(TCP4, 1380))
    mesh.run(1)
    assert [len(packet) for packet in weak.device.packets] == [1420, 1420, 1420, 900]
    assert [len(packet) for packet in good.device.packets] == [5040]


def test_with_offload_off_there_are_no_super_packets_in_either_direction() -> None:
    ends = TwoEnds(wanted=(NOTHING, Takes.CHECKSUM | Takes.TCP | Takes.UDP))
    ends.meet()
    assert ends.a.device.given[-1] == ends.b.device.given[-1] == NOTHING
    ends.b.device.send(back(b"plain"))
    ends.run()
    assert ends.a.device.packets == [back(b"plain")]


def test_a_kernel_that_refuses_super_packets_gets_none_any_more(ends: TwoEnds) -> None:
    ends.b.device.refuses = True
    for _ in range(FAILURES):
        ends.a.device.send(tcp4(bytes(5000)), vnet=offloaded(TCP4, 1380))
        ends.run()
    assert ends.b.losses(ends.key_a) == {"device": FAILURES}
    assert ends.b.events[-1] == ("offload", "")
    assert "the kernel refuses super-packets (tcp)" in ends.b.details
    assert ends.a.events[-1] == ("offload", ends.key_b)
    assert ends.a.device.given[-1] == Takes.CHECKSUM | Takes.UDP


def test_what_is_too_big_for_the_far_device_is_answered() -> None:
    ends = TwoEnds(mtus=(1420, 1300))
    ends.meet()
    ends.a.device.send(udp4(bytes(1380)), udp4(bytes(1272)))
    ends.a.device.send(tcp4(bytes(5000)), vnet=offloaded(TCP4, 1380))
    ends.run()
    assert ends.b.device.packets == [udp4(bytes(1272))]
    said = ends.a.device.packets
    assert [packet[20:22] for packet in said] == [b"\3\4", b"\3\4"]
    assert [packet[26:28] for packet in said] == [(1300).to_bytes(2, "big")] * 2
    assert ends.a.losses(ends.key_b) == {"too_big": 2}


def test_answers_are_few_a_second() -> None:
    ends = TwoEnds(mtus=(1420, 1300))
    ends.meet()
    ends.a.device.send(*[udp4(bytes(1380))] * 500)
    assert len(ends.a.device.packets) == 64


@pytest.mark.parametrize(
    ("shape", "packet", "reason"),
    [
        (Shape(TCP4 | UNFINISHED, 9000), tcp4(bytes(5000)), "malformed"),
        (Shape(TCP4 | UNFINISHED, 1), tcp4(bytes(5000)), "malformed"),
        (Shape(3 | UNFINISHED, 1380), udp4(bytes(5000)), "not_taken"),
        (Shape(TCP4, 1380), tcp4(bytes(5000)), "not_taken"),
        (Shape(0, 0), udp4(bytes(5000)), "too_big"),
        (Shape(0, 0), udp4(b"cut short")[:-1], "malformed"),
        (Shape(0, 0), bytes(40), "malformed"),
    ],
)
def test_what_a_hostile_peer_says_reaches_no_kernel(
    ends: TwoEnds, shape: Shape, packet: bytes, reason: str
) -> None:
    record(ends, records.packet(shape, packet))
    assert ends.b.device.written == []
    assert ends.b.losses(ends.key_a) == {reason: 1}
    ends.a.device.send(udp4(b"fine"))
    ends.run()
    assert ends.b.device.packets == [udp4(b"fine")]


@pytest.mark.parametrize(
    ("data", "lane"),
    [
        (b"\x08\0\0\0" + udp4(), CONTROL_LANE),
        (b"\x0a\x07\x05\x8c", 1),
        (b"\x0a\x07\x05", CONTROL_LANE),
        (b"\x0b\0\0\0", 1),
        (b"\xff" * 40, 2),
        (b"\x09\0\0\0\0\x14", 1),
    ],
)
def test_who_breaks_the_protocol_loses_the_session(ends: TwoEnds, data: bytes, lane: int) -> None:
    record(ends, data, lane)
    assert ends.mesh.engines["b"].counters["session_broke_protocol"] == 1
    assert ("down", ends.key_a) in ends.b.events


def test_who_says_something_else_again_and_again_loses_the_session(ends: TwoEnds) -> None:
    way = ends.mesh.engines["a"].lane(ends.key_b)
    assert way is not None
    for at in range(MAX_CHANGES + 1):
        way.send_record(CONTROL_LANE, records.tunnel(Takes(at % 2), 1420))
    ends.run()
    assert ends.mesh.engines["b"].counters["session_broke_protocol"] == 1
    assert len(ends.b.events) <= 2 * MAX_CHANGES + 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=120), max_size=12), st.integers(0, 4))
def test_any_bytes_of_a_peer_leave_the_node_as_it_was(pieces: list[bytes], lane: int) -> None:
    ends = TwoEnds()
    ends.meet()
    for piece in pieces:
        way = ends.mesh.engines["a"].lane(ends.key_b)
        if way is not None and way.session.up:
            way.send_record(lane, bytes([8 + piece[0] % 3]) + piece)
            ends.run(0.1)
    for vnet, packet in ends.b.device.written:
        assert packet[12:16] == bytes([10, 9, 0, 1]) or packet[0] >> 4 == 6
        assert len(vnet) == 10
    ends.run(5)
    ends.b.device.written.clear()
    ends.mesh.engines["a"].ping(ends.key_b, lambda _: None)
    ends.run(5)
    ends.a.device.send(udp4(b"goes on"))
    ends.run()
    assert ends.b.device.packets == [udp4(b"goes on")]


def test_two_nodes_may_be_each_others_exits(ends: TwoEnds) -> None:
    second_a = End(ends.mesh.engines["a"], MemoryDevice())
    second_b = End(ends.mesh.engines["b"], MemoryDevice())
    second_a.peer(ends.key_b, "0.0.0.0/0")
    second_b.peer(ends.key_a, "10.8.0.1/32")
    ends.run()
    second_a.device.send(udp4(b"out", source="10.8.0.1", destination="9.9.9.9"))
    ends.a.device.send(udp4(b"direct"))
    ends.run()
    assert second_b.device.packets == [udp4(b"out", source="10.8.0.1", destination="9.9.9.9")]
    assert ends.b.device.packets == [udp4(b"direct")]
    second_b.device.send(back(b"answer", source="9.9.9.9", destination="10.8.0.1"))
    ends.run()
    assert second_a.device.packets == [back(b"answer", source="9.9.9.9", destination="10.8.0.1")]
    second_b.close()
    assert second_b.device.closed
    ends.a.device.send(udp4(b"as before"))
    ends.run()
    assert ends.b.device.packets == [udp4(b"as before")]


def test_a_device_that_vanishes_is_told_of(ends: TwoEnds) -> None:
    ends.a.device.gone = True
    ends.a.device.send(udp4(b"never read"))
    assert ends.a.events[-1] == ("down", "")
    assert "tun0 is gone" in ends.a.details[-1]


def test_on_a_slow_way_a_ping_passes_what_waits() -> None:
    ends = TwoEnds(Nature(delay=0.02, rate=1_000_000))
    ends.meet()
    bulk = tcp4(bytes(1380))
    world = ends.mesh.world
    came: list[float] = []
    for round_ in range(40):
        ends.a.device.send(*[bulk] * 40)  # more than twice what the way carries
        if round_ == 30:
            ends.a.device.send(udp4(b"ping", port=1234))
            sent_at = world.now
        ends.run(0.025)
        if not came and udp4(b"ping", port=1234) in ends.b.device.packets:
            came.append(world.now)
    assert came
    peer = ends.a.tunnel.peers[ends.key_b]
    waiting = peer.queued
    assert came[0] - sent_at < 0.5 * waiting / 1_000_000
    assert set(peer.losses()) & {"congestion", "queue_full"}
