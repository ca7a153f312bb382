"""A data connection over real sockets: what arrives, what waits, and what ends it."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from nodes import wire
from nodes.links import tcpline
from nodes.links.base import Packet
from nodes.links.heads import LineKeys, Opener, Sealer
from nodes.links.tcpline import BUFFER, TcpLine
from nodes.wire import FrameType, WireError

KEYS = LineKeys("a" * 40, "b" * 40, (bytes(32), bytes(32)))
BUFFER_OF_ALL = memoryview(bytearray(BUFFER))


class Owner:
    """A link that writes down what its connection says."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, bytes]] = []
        self.kept: list[Packet] = []
        self.opened = self.writable = 0
        self.lost: list[str] = []
        self.shocked = False

    def line_opened(self, line: TcpLine) -> None:
        self.opened += 1

    def line_received(self, packet: Packet) -> None:
        if self.shocked:
            raise WireError("not this")
        self.heard.append((packet.counter, bytes(packet.payload)))
        self.kept.append(packet.keep())

    def line_writable(self, line: TcpLine) -> None:
        self.writable += 1

    def line_lost(self, line: TcpLine, reason: str) -> None:
        self.lost.append(reason)


class Pair:
    """A dialler's and a listener's end of connection 1 of 4."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far, _ = server.accept()
        for sock in (near, far):
            sock.settimeout(0)
        self.at_near, self.at_far = Owner(), Owner()
        there, back = KEYS.from_dialler(1), KEYS.from_listener(1)
        self.near = self._line(self.at_near, near, Sealer(there), Opener(back))
        self.far = self._line(self.at_far, far, Sealer(back), Opener(there))

    def _line(self, owner: Owner, sock: socket.socket, sealer: Sealer, opener: Opener) -> TcpLine:
        loop = asyncio.get_running_loop()
        return TcpLine(owner, sock, (sealer, opener), (1, 4), loop, BUFFER_OF_ALL)


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    made = Pair()
    try:
        yield made
    finally:
        made.near.close()
        made.far.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def data(counter: int) -> bytes:
    return wire.head(FrameType.DATA, 4, counter, lane=1)


async def test_frames_of_all_sizes_arrive_whole_and_in_order_both_ways() -> None:
    seeded = random.Random(5)
    sizes = [0, 1, 35, 36, 37, wire.MAX_PAYLOAD, *(seeded.randint(0, 65_600) for _ in range(60))]
    frames = [(counter, seeded.randbytes(size)) for counter, size in enumerate(sizes)]
    with pair() as line:
        for counter, payload in frames:
            line.near.send(data(counter), payload)
            line.far.send(data(counter), memoryview(payload))
        await until(lambda: len(line.at_far.heard) == len(line.at_near.heard) == len(frames))
        assert line.at_far.heard == line.at_near.heard == frames
        assert [bytes(packet.payload) for packet in line.at_far.kept] == [p for _, p in frames]
        assert line.at_near.opened == 1
        assert line.near.bytes_out == line.far.bytes_in == sum(16 + len(p) for _, p in frames)


async def test_frames_that_come_byte_by_byte_are_frames() -> None:
    with pair() as line:
        sealer = Sealer(KEYS.from_dialler(1))
        line.near.close()
        with socket.create_server(("127.0.0.1", 0)) as server:
            raw = socket.create_connection(server.getsockname())
            taken, _ = server.accept()
        taken.settimeout(0)
        owner = Owner()
        ends = Sealer(KEYS.from_listener(1)), Opener(KEYS.from_dialler(1))
        slow = TcpLine(owner, taken, ends, (1, 4), asyncio.get_running_loop(), BUFFER_OF_ALL)
        for byte in sealer.seal(data(1), 3) + b"abc" + sealer.seal(data(2), 0):
            raw.send(bytes([byte]))
            await asyncio.sleep(0)
        await until(lambda: len(owner.heard) == 2)
        assert owner.heard == [(1, b"abc"), (2, b"")]
        slow.close()
        raw.close()


class Account:
    kept = 0


async def test_what_the_socket_does_not_take_is_kept_on_account_and_goes_later() -> None:
    with pair() as line:
        account, payload = Account(), os.urandom(65_536)
        line.far._loop.remove_reader(line.far.sock.fileno())
        count = 0
        while not line.near.blocked or count < 100:
            line.near.send(data(count), payload, account)
            count += 1
        assert 0 < account.kept <= line.near.kept
        line.far._loop.add_reader(line.far.sock.fileno(), line.far._read)
        await until(lambda: len(line.at_far.heard) == count)
        await until(lambda: line.at_near.writable)
        assert line.at_near.writable == 1
        assert account.kept == line.near.kept == 0
        assert not line.near.blocked
        assert line.at_far.heard == [(number, payload) for number in range(count)]


async def test_what_was_kept_leaves_the_account_when_the_line_closes() -> None:
    with pair() as line:
        account = Account()
        for number in range(400):
            line.near.send(data(number), bytes(65_536), account)
        assert account.kept > 0
        line.near.close()
        assert account.kept == line.near.kept == 0
        line.near.send(data(9), b"nobody hears it")


async def test_a_neighbour_that_does_not_read_is_given_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcpline, "MAX_BACKLOG", 1 << 20)
    with pair() as line:
        line.far._loop.remove_reader(line.far.sock.fileno())
        for number in range(400):
            line.near.send(data(number), bytes(65_536))
        await until(lambda: line.at_near.lost)
        assert line.at_near.lost == ["it does not read"]
        assert line.near.kept == 0


async def test_both_directions_saturated_still_move() -> None:
    with pair() as line:
        payload = bytes(65_536)
        for number in range(300):
            line.near.send(data(number), payload)
            line.far.send(data(number), payload)
        assert line.near.blocked
        assert line.far.blocked
        await until(lambda: len(line.at_far.heard) == len(line.at_near.heard) == 300)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (os.urandom(36), "protocol"),
        (bytes(36), "protocol"),
        ((65_601).to_bytes(4, "big") + bytes(32), "65601 bytes"),
        (b"\xff" * 200_000, "protocol"),
    ],
    ids=["random", "zero", "oversized", "flood"],
)
async def test_a_head_that_was_not_sealed_ends_the_connection(raw: bytes, why: str) -> None:
    with pair() as line:
        line.near.sock.send(raw)
        await until(lambda: line.at_far.lost)
        assert why in line.at_far.lost[0]
        assert line.at_far.heard == []
        await until(lambda: line.at_near.lost)


@pytest.mark.parametrize(
    "head",
    [
        wire.head(FrameType.DATA, 5, 1, lane=1),
        wire.head(FrameType.DATA, 5, 1, lane=0),
        wire.head(FrameType.DATA, 6, 1, lane=15),
        wire.head(FrameType.CLOSE, 4, 1, lane=1),
        wire.head(FrameType.HELLO),
        b"\x12" + bytes(15),
    ],
    ids=["other-connection", "lane-0", "lane-15", "close", "hello", "version-1"],
)
async def test_a_frame_that_does_not_belong_there_ends_the_connection(head: bytes) -> None:
    with pair() as line:
        line.near.send(head, b"")
        await until(lambda: line.at_far.lost)
        assert line.at_far.heard == []


async def test_an_owner_that_refuses_a_frame_ends_the_connection_once() -> None:
    with pair() as line:
        line.at_far.shocked = True
        for number in range(5):
            line.near.send(data(number), b"x")
        await until(lambda: line.at_far.lost)
        assert line.at_far.lost == ["it broke the protocol: not this"]


async def test_the_end_of_the_connection_is_told() -> None:
    with pair() as line:
        line.near.close()
        await until(lambda: line.at_far.lost)
        assert line.at_far.lost == ["the connection ended"]
        assert line.at_near.lost == []
