"""The data plane over links in memory: what a neighbour or a far end can and cannot do."""

import asyncio
import socket

import pytest

from nodes import wire
from nodes.engine import Engine
from nodes.links.memory import Nature, World
from nodes.mesh import Onward
from nodes.pump import Pump
from nodes.wire import Code, FrameType, Kind

A, R, B = "a" * 40, "r" * 40, "b" * 40


class App:
    """Holder and Listening in one: writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.pumps: list[Pump] = []

    def incoming(self, pump: Pump, origin: str, greeting: bytes) -> None:
        pump.holder = self
        self.pumps.append(pump)
        self.told.append(("incoming", (origin, greeting)))

    def opened(self, pump: Pump, reply: bytes) -> None:
        self.told.append(("opened", reply))

    def declined(self, pump: Pump, code: int, reply: bytes) -> None:
        self.told.append(("declined", (code, reply)))

    def ended(self, pump: Pump) -> None:
        self.told.append(("ended", None))

    def closed(self, pump: Pump, code: Code) -> None:
        self.told.append(("closed", code))


class Line:
    """a - r - b with a route between the ends, and nothing delivered yet."""

    def __init__(self, capacity: int = 1 << 18) -> None:
        self.a, self.r, self.b = (Engine(key) for key in (A, R, B))
        self.world, nature = World(), Nature(capacity=capacity)
        self.ar, self.ra = self.world.link(A, self.a, R, self.r, nature)
        self.br, self.rb = self.world.link(B, self.b, R, self.r, nature)
        to_a = self.a.end("route", R, B, None)
        back = self.r.relay("route", B, Onward(A, to_a))
        to_b = self.b.end("route", R, A, Onward(R, back))
        self.out = self.r.relay("route", A, Onward(B, to_b))
        self.to_b = to_b
        self.a.bind("route", B, Onward(R, self.out))
        self.near, self.far = App(), App()
        self.b.listeners[80] = self.far

    def run(self) -> None:
        self.world.run()

    def open(self) -> Pump:
        lane = self.a.lane(B)
        assert lane is not None
        pump = self.a.open(lane, 80, b"hi", self.near)
        self.run()
        return pump

    def accepted(self) -> tuple[Pump, Pump]:
        near = self.open()
        far = self.far.pumps[-1]
        self.b.accept(far, b"yes")
        self.run()
        return near, far


def test_a_stream_opens_across_the_relay() -> None:
    line = Line()
    line.accepted()
    assert line.far.told == [("incoming", (A, b"hi"))]
    assert line.near.told == [("opened", b"yes")]
    assert line.r.mesh.sessions == {}


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
    assert ("closed", Code.LINK_LOST) in line.far.told
    assert ("closed", Code.LINK_LOST) in line.near.told


def test_a_far_end_that_breaks_the_rules_loses_its_session_and_the_link_stays() -> None:
    line = Line()
    line.accepted()
    lane = line.a.lane(B)
    assert lane is not None
    number = lane.session.number_out()
    line.ar.send(wire.frame(FrameType.DATA, line.out, number, b"\x63 nonsense"))
    line.run()
    assert ("closed", Code.PROTOCOL) in line.far.told
    assert ("closed", Code.PROTOCOL) in line.near.told
    assert line.b.counters["session_broke_protocol"] == 1
    assert sorted(line.r.links) == [A, B]
    assert line.a.lane(B) is None


def test_a_lost_link_closes_streams_at_both_ends() -> None:
    line = Line()
    line.accepted()
    line.rb.cut("pulled")
    line.run()
    assert line.near.told[-1] == line.far.told[-1] == ("closed", Code.LINK_LOST)
    assert line.a.streams == line.b.streams == 0
    assert line.r.mesh.tables == {A: {}}


def test_a_route_that_ignores_its_windows_is_dropped_by_the_relay() -> None:
    line = Line()
    line.accepted()
    lane = line.a.lane(B)
    assert lane is not None
    record = wire.record(Kind.DATA, 1, bytes(65536))
    for _ in range(140):
        frame = wire.frame(FrameType.DATA, line.out, lane.session.number_out(), record)
        line.ar.send(frame)
    line.rb.partition(both=False)
    line.run()
    assert line.r.counters["route_overrun"] == 1
    line.rb.heal()
    line.run()
    assert line.near.told[-1][0] == line.far.told[-1][0] == "closed"


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
        assert line.ar.full(line.out, 1)
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
