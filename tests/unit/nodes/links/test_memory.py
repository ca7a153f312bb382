"""The links of tests: what they promise to the tests that stand on them."""

import itertools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import wire
from nodes.links.base import Link, Packet
from nodes.links.memory import MemoryLink, Nature, World
from nodes.links.packet import Received
from nodes.wire import FrameType, WireError

A, B = "a" * 40, "b" * 40


@dataclass
class End:
    """An owner that writes down what it hears, and when."""

    world: World
    heard: list[tuple[float, int, int, int]] = field(default_factory=list)
    down: list[tuple[float, str]] = field(default_factory=list)
    room: list[int] = field(default_factory=list)
    shocked: bool = False

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: str) -> None:
        self.down.append((self.world.now, reason))

    def received(self, link: Link, packet: Packet) -> None:
        if self.shocked:
            raise WireError("not this")
        self.heard.append((self.world.now, packet.lane, packet.label, packet.counter))

    def writable(self, link: Link, connection: int) -> None:
        self.room.append(connection)


@dataclass
class Kept:
    kept: int = 0


def linked(nature: Nature, seed: int = 0) -> tuple[World, MemoryLink, End, MemoryLink, End]:
    world = World(seed)
    near, far = End(world), End(world)
    here, there = world.link(A, near, B, far, nature)
    return world, here, near, there, far


def data(counter: int, lane: int = 1, label: int = 7) -> bytes:
    return wire.head(FrameType.DATA, label, counter, lane=lane)


frames = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), max_size=60)


@given(frames, st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_all_arrives_and_each_label_and_lane_in_order(
    sent: list[tuple[int, int]], seed: int
) -> None:
    world, here, _, _, far = linked(Nature(delay=0.01, jitter=0.05, rate=1e6), seed)
    for counter, (lane, label) in enumerate(sent):
        here.send(data(counter, lane, label), bytes(100))
    world.run(None)
    for lane, label in set(sent):
        wanted = [at for at, frame in enumerate(sent) if frame == (lane, label)]
        assert [c for _, ln, lb, c in far.heard if (ln, lb) == (lane, label)] == wanted
    assert len(far.heard) == len(sent)


def overtaken(seed: int) -> list[tuple[float, int, int, int]]:
    world, here, _, _, far = linked(Nature(delay=0.01, jitter=0.05), seed)
    for counter in range(100):
        here.send(data(counter, 1 + counter % 4))
    world.run(None)
    return far.heard


def test_lanes_overtake_each_other_the_same_way_for_the_same_seed() -> None:
    counters = [counter for _, _, _, counter in overtaken(1)]
    assert counters != sorted(counters)
    assert overtaken(1) == overtaken(1) != overtaken(2)


def test_a_frame_takes_its_time() -> None:
    world, here, _, _, far = linked(Nature(delay=0.1, rate=1016))
    here.send(data(1), bytes(1000))
    here.send(data(2), bytes(1000))
    world.run(None)
    assert [round(at, 6) for at, *_ in far.heard] == [1.1, 2.1]


def test_a_connection_is_full_beyond_its_capacity_and_says_when_it_is_not() -> None:
    world, here, near, _, _ = linked(Nature(rate=1e6, capacity=1000))
    account = Kept()
    here.send(data(1), bytes(900))
    assert not here.full(7, 1)
    carried = Received.of_bytes(bytearray(data(2) + bytes(900)))
    here.forward(data(2), carried, account)
    assert account.kept == 916
    assert here.full(7, 1)
    assert not here.full(7, 2)
    world.run(None)
    assert not here.full(7, 1)
    assert near.room == [here.connection(7, 1)]
    assert account.kept == here.waiting == 0


def test_a_partition_holds_frames_up_and_healing_lets_them_go() -> None:
    world, here, near, there, far = linked(Nature(delay=0.01))
    here.send(data(1))
    here.partition()
    here.send(data(2))
    there.send(data(3))
    world.run(2.9)
    assert far.heard == near.heard == []
    here.heal()
    world.run(1)
    assert [heard[3] for heard in far.heard] == [1, 2]
    assert [heard[3] for heard in near.heard] == [3]
    assert near.down == far.down == []


def test_a_partition_of_three_seconds_ends_the_link_at_both_ends() -> None:
    world, here, near, there, far = linked(Nature(delay=0.01))
    here.partition(both=False)
    world.run(10)
    assert near.down == far.down == [(3.0, "no sign of life for 3 s")]
    assert not here.alive
    assert not there.alive


def test_a_link_that_flaps_lives() -> None:
    world, here, near, _, far = linked(Nature(delay=0.01))
    for counter in range(5):
        here.partition()
        here.send(data(counter))
        world.run(2)
        here.heal()
        world.run(0.1)
    assert [heard[3] for heard in far.heard] == [0, 1, 2, 3, 4]
    assert near.down == []


def test_a_cut_loses_all_but_a_prefix_of_what_is_under_way() -> None:
    prefixes = set()
    for seed in range(20):
        world, here, near, there, far = linked(Nature(delay=0.1), seed)
        for counter in range(5):
            here.send(data(counter))
            there.send(data(counter))
        world.run(0.05)
        here.cut("pulled")
        here.send(data(9))
        world.run(1)
        counters = [heard[3] for heard in far.heard]
        assert counters == list(range(len(counters)))
        assert near.heard == []
        assert near.down == [(0.05, "pulled")]
        assert [reason for _, reason in far.down] == ["the connection ended"]
        prefixes.add(len(counters))
    assert len(prefixes) > 2


def test_whoever_breaks_the_protocol_is_cut() -> None:
    for bad, shocked in ((b"junk", False), (wire.hello(A, "a"), False), (data(1), True)):
        world, here, near, _, far = linked(Nature())
        far.shocked = shocked
        here.send(bad)
        world.run(1)
        assert near.down
        assert "protocol" in far.down[0][1]


def test_what_is_asked_for_again_and_again_is_called_at_its_times() -> None:
    world, times = World(), []
    world.every(1.0, lambda: times.append(world.now))
    world.run(3.5)
    assert times == [1.0, 2.0, 3.0]
    for _ in itertools.repeat(None, 3):
        assert world.step()
    assert times[-1] == 6.0
