"""The data plane over links in memory: what a neighbour or a far end can and cannot do."""

import asyncio
import socket

import pytest

from bus.identity import to_bytes
from nodes import wire
from nodes.engine import Echo
from nodes.links.memory import MAX_BACKLOG, Nature
from nodes.liveness import LOST_AFTER
from nodes.pump import Pump
from nodes.session import Session
from nodes.wire import Code, FrameType, Kind
from tests.support.memory_mesh import App, MemoryMesh, keypair

A, R, B = (keypair(name).public for name in "arb")


class Line:
    """a - r - b with a route between the ends, and keys agreed on."""

    def __init__(self, capacity: int = 1 << 18) -> None:
        self.mesh = MemoryMesh("a", "r", "b", nature=Nature(capacity=capacity))
        self.world = self.mesh.world
        self.a, self.r, self.b = (self.mesh.engines[name] for name in "arb")
        self.ar, self.ra = self.mesh.link("a", "r")
        self.br, self.rb = self.mesh.link("b", "r")
        labels = self.mesh.route("a", "r", "b")
        self.out, self.to_b = labels["r"], labels["b"]
        self.near, self.far = App(), App()
        self.b.listeners[80] = self.far
        self.run()

    @property
    def session(self) -> Session:
        return self.a.sessions[B]

    def run(self, seconds: float = 0.0) -> None:
        self.world.run(seconds)

    def open(self) -> Pump:
        pump = self.mesh.open("a", "b", self.near)
        self.run()
        return pump

    def accepted(self) -> tuple[Pump, Pump]:
        near = self.open()
        far = self.far.pumps[-1]
        self.b.accept(far, b"yes")
        self.run()
        return near, far


def two_ways() -> MemoryMesh:
    """a - r - b with an active route, a - s - b with the standby."""
    mesh = MemoryMesh("a", "r", "s", "b", nature=Nature(delay=0.01))
    for pair in ("ar", "rb", "as", "sb"):
        mesh.link(*pair)
    mesh.route("a", "r", "b")
    mesh.route("a", "s", "b", standby=True)
    return mesh


def test_a_stream_opens_across_the_relay() -> None:
    line = Line()
    line.accepted()
    assert line.far.told == [("incoming", (A, b"hi"))]
    assert line.near.told == [("opened", b"yes")]
    assert line.r.sessions == {}


def test_a_refusal_and_a_missing_listener_are_told_apart() -> None:
    line = Line()
    line.open()
    line.b.refuse(line.far.pumps[0], 9, b"closed today")
    line.run()
    assert line.near.told == [("declined", (9, b"closed today"))]
    line.near.told.clear()
    line.b.listeners.clear()
    line.open()
    assert line.near.told == [("closed", Code.NO_LISTENER)]


def test_a_label_from_the_wrong_neighbour_is_dropped_and_counted() -> None:
    line = Line()
    line.accepted()
    forged = wire.frame(FrameType.DATA, line.out, 99, wire.record(Kind.RESET, 1))
    line.br.send(forged)  # b uses the label that r made for a
    line.ar.send(wire.frame(FrameType.DATA, line.to_b, 99, b""))  # a skips the relay
    line.run()
    assert line.r.counters["unknown_label"] == 2
    assert line.near.told == [("opened", b"yes")]


@pytest.mark.parametrize(
    "frame", [b"", b"x", b"\x12" + bytes(20), wire.hello("a", "a"), bytes(70_000), b"\x2f" * 16]
)
def test_a_neighbour_that_speaks_nonsense_loses_its_link(frame: bytes) -> None:
    line = Line()
    line.accepted()
    line.ar.send(frame)
    line.run()
    assert list(line.r.links) == [B]
    line.run(LOST_AFTER + 2)
    assert line.far.told[-1][0] == line.near.told[-1][0] == "closed"


def test_a_far_end_that_breaks_the_rules_loses_its_session_and_the_link_stays() -> None:
    line = Line()
    line.accepted()
    kept = line.session.seal(1, b"\x63 nonsense", line.world.now)
    head = wire.head(FrameType.DATA, line.out, kept.counter, lane=1, epoch=kept.epoch, ttl=9)
    line.ar.send(head, kept.data)
    line.run()
    assert ("closed", Code.PROTOCOL) in line.far.told
    assert ("closed", Code.PROTOCOL) in line.near.told
    assert line.b.counters["session_broke_protocol"] == 1
    assert sorted(line.r.links) == sorted([A, B])
    line.accepted()  # in a new session


def test_a_lost_link_closes_streams_at_both_ends_when_no_other_route_comes() -> None:
    line = Line()
    line.accepted()
    line.rb.cut("pulled")
    line.run()
    assert line.a.lane(B) is None
    line.run(LOST_AFTER - 2)
    assert line.near.told[-1] == ("opened", b"yes")
    assert ("a", "b") in line.mesh.wanted
    line.run(5)
    assert line.near.told[-1][0] == line.far.told[-1][0] == "closed"
    assert line.a.streams == line.b.streams == 0
    assert line.r.mesh.tables == {A: {}}
    line.run(LOST_AFTER)
    assert line.a.sessions == {}


def test_who_only_asked_for_a_stream_is_told_that_there_is_no_route() -> None:
    line = Line()
    line.rb.cut("pulled")
    line.open()
    line.a.unreachable(B, Code.NO_ROUTE)
    assert line.near.told == [("closed", Code.NO_ROUTE)]


def test_a_route_that_ignores_its_windows_is_dropped_by_the_relay() -> None:
    line = Line()
    line.accepted()
    for number in range(600):
        head = wire.head(FrameType.DATA, line.out, number, lane=1, ttl=9)
        line.ar.send(head, bytes(65536))
    line.rb.partition(both=False)
    line.run()
    assert line.r.counters["route_overrun"] == 1
    assert line.r.mesh.tables == {A: {}, B: {}}
    assert line.r.links.keys() == {A, B}


def test_several_routes_that_ignore_their_windows_do_not_cost_the_link() -> None:
    line = Line()
    labels = [line.mesh.route("a", "r", "b", standby=True)["r"] for _ in range(4)]
    line.run(1)
    line.rb.partition(both=False)
    line.ra.partition(both=False)  # a does not hear that its routes are dropped
    for number in range(3000):
        # All on the same connection.
        lane = 1 + -labels[number % 4] % 4
        head = wire.head(FrameType.DATA, labels[number % 4], number, lane=lane, ttl=9)
        line.ar.send(head, bytes(65536))
        line.run(0.0005)
    assert line.r.counters["route_overrun"]
    assert line.rb.waiting < MAX_BACKLOG * 4
    assert all(way.waiting < MAX_BACKLOG for way in line.rb._ways)


def test_a_stream_goes_on_over_the_standby_when_the_relay_is_lost() -> None:
    mesh = two_ways()
    near, far = App(), App()
    mesh.engines["b"].listeners[80] = far
    mesh.open("a", "b", near)
    mesh.run(1)
    mesh.links["r", "b"].cut("pulled")
    mesh.engines["b"].accept(far.pumps[0], b"yes")
    mesh.run(1)
    assert near.told == [("opened", b"yes")]
    assert mesh.wanted


def test_a_relay_that_hears_and_says_nothing_is_left_for_the_standby() -> None:
    mesh = two_ways()
    near, far = App(), App()
    mesh.engines["b"].listeners[80] = far
    mesh.run(1)
    for table in mesh.engines["r"].mesh.tables.values():
        table.clear()
    mesh.open("a", "b", near)
    mesh.run(5)
    assert [told for told, _ in far.told] == ["incoming"]


def test_routes_that_are_used_or_stand_by_do_not_expire() -> None:
    mesh = two_ways()
    mesh.run(200)
    for relay in "rs":
        assert sum(len(table) for table in mesh.engines[relay].mesh.tables.values()) == 2
    assert not mesh.down


def test_every_node_on_a_route_answers_a_probe() -> None:
    mesh = MemoryMesh("a", "r", "s", "b", nature=Nature(delay=0.01))
    for pair in ("ar", "rs", "sb"):
        mesh.link(*pair)
    mesh.route("a", "r", "s", "b")
    way = mesh.engines["a"].sessions[mesh.key("b")].ways.used
    assert way is not None
    heard: list[Echo] = []
    for ttl in (1, 2, 3):
        assert mesh.engines["a"].probe(way, ttl, heard.append)
        mesh.run(0.1)
    assert [echo.key for echo in heard] == [to_bytes(mesh.key(name)) for name in "rsb"]
    assert [echo.round_trip for echo in heard] == pytest.approx([0.02, 0.04, 0.06])


def test_frames_that_go_round_in_circles_die() -> None:
    line = Line()
    head = wire.head(FrameType.DATA, line.out, 1, lane=1, ttl=1)
    line.ar.send(head, b"x" * 40)
    line.run()
    assert line.r.counters["ttl_ended"] == 1


def test_an_app_that_never_answers_is_given_up_on() -> None:
    line = Line()
    line.open()
    for _ in range(40):
        line.b.tick()
    line.run()
    assert line.near.told == [("closed", Code.TIMEOUT)]


async def test_a_small_pieces_flood_is_joined_while_it_waits() -> None:
    line = Line()
    _near, far = line.accepted()
    for _ in range(1000):
        far.deliver(memoryview(b"x"))
    assert len(far._pending) == 1


async def test_bytes_flow_and_stop_at_a_full_link() -> None:
    line = Line(capacity=0)
    near, far = line.accepted()
    (app, handed), (target, taken) = socket.socketpair(), socket.socketpair()
    loop = asyncio.get_running_loop()
    with app, target:
        near.attach(handed, loop, idle=0, early=b"early ")
        far.attach(taken, loop, idle=0, early=b"")
        app.settimeout(0)
        sent = 0
        for _ in range(100):
            try:
                sent += app.send(bytes(4096))
            except BlockingIOError:
                await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert line.ar.full(line.out, near.stream.lane)
        assert 0 < line.ar.waiting <= wire.MAX_FRAME
        received = 0
        target.settimeout(0)
        while received < sent + 6:
            line.run()
            await asyncio.sleep(0)
            received += len(await loop.sock_recv(target, 65536))
        app.close()
        target.shutdown(socket.SHUT_WR)
        while not near.is_closed or not far.is_closed:
            line.run()
            await asyncio.sleep(0.001)
    assert line.near.told[-1] == line.far.told[-1] == ("closed", Code.DONE)
