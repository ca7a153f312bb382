"""UDP ASSOCIATE at the socks-client, over two real nodes, with an exit that echoes."""

import asyncio
import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apps.socks.messages import PORT, Associated, Association, Refusal, encode, read_greeting
from apps.socks.packets import Packet, read_packet, write_packet
from apps.socks.protocol import Reply
from nodes.client import DatagramPort, Incoming, Node, NodeError, Stream, connect_node
from tests.support.pair import Pair
from tests.support.socks import GREETING, connect, receive, request

FLOOD = 5_000


@dataclass
class EchoingExit:
    """Sends every datagram back; what it heard and which streams it holds, for the tests."""

    node: Node
    datagrams: DatagramPort
    loop: asyncio.AbstractEventLoop
    refuse: bool = False
    heard: list[Packet] = field(default_factory=list)
    held: list[Stream] = field(default_factory=list)
    asked: list[Association] = field(default_factory=list)
    over: int = 0

    async def answer(self, incoming: Incoming) -> None:
        greeting = read_greeting(incoming.greeting)
        if not isinstance(greeting, Association) or self.refuse:
            refusal = encode(Refusal(Reply.NOT_ALLOWED, "no datagrams today"))
            await incoming.refuse(Reply.NOT_ALLOWED, refusal)
            return
        stream = await incoming.accept(encode(Associated(self.datagrams.port)))
        self.asked.append(greeting)
        self.held.append(stream)
        with contextlib.suppress(NodeError):
            await stream.read()
        await stream.aclose()
        self.over += 1

    async def echo(self) -> None:
        async for came in self.datagrams:
            packet = read_packet(came.data)
            if packet is not None:
                self.heard.append(packet)
                await self.datagrams.send_to(came.origin, came.port, write_packet(packet))

    def call(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


@contextlib.contextmanager
def echoing_exit(path: Path) -> Iterator[EchoingExit]:
    """Run one at a node, in a thread."""
    made: list[EchoingExit] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def work() -> None:
        async with connect_node(path) as node, await node.bind() as datagrams:
            listener = await node.listen(PORT)
            running = EchoingExit(node, datagrams, asyncio.get_running_loop())
            made.append(running)
            serving = [asyncio.create_task(running.echo())]

            async def accept() -> None:
                async for incoming in listener:
                    answering = running.answer(incoming)
                    serving.append(asyncio.create_task(answering))

            serving.append(asyncio.create_task(accept()))
            ready.set()
            await stop.wait()
            for each in serving:
                each.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            for stream in running.held:
                await stream.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield made[0]
    finally:
        made[0].loop.call_soon_threadsafe(stop.set)
        thread.join(20)


@dataclass(frozen=True)
class Setting:
    pair: Pair
    exit: EchoingExit


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    with tempfile.TemporaryDirectory(prefix="pair-") as folder:
        pair = Pair(Path(folder))
        try:
            pair.start_broker(["alpha", "beta"])
            pair.start_manager()
            pair.start_node("alpha")
            pair.start_node("beta", "alpha")
            asyncio.run(pair.linked(("alpha", "beta")))
            with echoing_exit(pair.socket("beta")) as running:
                pair.socks_port = pair.start_near()
                yield Setting(pair, running)
        finally:
            pair.stop()


@contextlib.contextmanager
def associated(setting: Setting) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """The connection that holds an association, and where to send."""
    with connect(setting.pair.socks_port) as control:
        control.sendall(GREETING + request("0.0.0.0", 0, 3))
        answer = receive(control, 12)
        assert answer[:6] == b"\5\0\5\0\0\1"
        yield control, (socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:12]))


@contextlib.contextmanager
def udp(address: str = "127.0.0.1", patience: float = 20) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.settimeout(patience)
        yield sock


def datagram(data: bytes, host: str = "192.0.2.7", port: int = 53) -> bytes:
    return b"\0\0\0" + request(host, port)[3:] + data


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "name.example"])
def test_datagrams_go_out_and_answers_come_back(setting: Setting, host: str):
    with associated(setting) as (_, there), udp() as sock:
        for number in range(20):
            sock.sendto(datagram(b"%d" % number, host), there)
            assert sock.recvfrom(65535) == (datagram(b"%d" % number, host), there)
    assert setting.exit.heard[-1][1:] == (host, 53, b"19")


def test_one_of_60_000_bytes_too(setting: Setting):
    with associated(setting) as (_, there), udp() as sock:
        sock.sendto(datagram(bytes(59_900)), there)
        assert sock.recv(65535) == datagram(bytes(59_900))


def after(setting: Setting, there: tuple[str, int], sock: socket.socket, *bad: bytes) -> None:
    """What is dropped is passed by what is sent after it, and nothing comes of it."""
    for each in bad:
        sock.sendto(each, there)
    sock.sendto(datagram(b"good"), there)
    assert sock.recv(65535) == datagram(b"good")


def test_fragments_and_what_is_no_datagram_of_socks_is_dropped(setting: Setting):
    with associated(setting) as (_, there), udp() as sock:
        heard = len(setting.exit.heard)
        fragment = b"\0\0\1" + datagram(b"half")[3:]
        after(setting, there, sock, fragment, b"", b"\0", b"\0\0\0", b"\0\0\0\1", b"\1\0\0\1")
        assert [packet.data for packet in setting.exit.heard[heard:]] == [b"good"]


def test_only_the_host_of_the_connection_may_send(setting: Setting):
    with associated(setting) as (_, there), udp("127.0.0.2") as stranger, udp() as sock:
        heard = len(setting.exit.heard)
        stranger.sendto(datagram(b"mine"), there)
        after(setting, there, sock)
        assert [packet.data for packet in setting.exit.heard[heard:]] == [b"good"]


def test_only_the_port_that_sent_first_may_send(setting: Setting):
    with associated(setting) as (_, there), udp() as sock, udp(patience=0.5) as other:
        after(setting, there, sock)
        heard = len(setting.exit.heard)
        other.sendto(datagram(b"mine too"), there)
        after(setting, there, sock)
        assert [packet.data for packet in setting.exit.heard[heard:]] == [b"good"]


def test_a_client_that_names_its_port_is_held_to_it(setting: Setting):
    with connect(setting.pair.socks_port) as control, udp() as sock, udp() as other:
        control.sendall(GREETING + request("0.0.0.0", sock.getsockname()[1], 3))
        answer = receive(control, 12)
        there = "127.0.0.1", int.from_bytes(answer[10:12])
        heard = len(setting.exit.heard)
        other.sendto(datagram(b"first"), there)
        after(setting, there, sock)
        assert [packet.data for packet in setting.exit.heard[heard:]] == [b"good"]


def test_who_has_sent_nothing_gets_nothing(setting: Setting):
    with associated(setting) as (_, there), udp() as sock:
        near, asked = setting.pair.key("alpha"), setting.exit.asked[-1]
        forged = write_packet(Packet(asked.number, "192.0.2.7", 53, b"forged"))
        setting.exit.call(setting.exit.datagrams.send_to(near, asked.port, forged))
        with associated(setting) as (_, other), udp() as later:
            after(setting, other, later)  # came by the same way, and after it
        after(setting, there, sock)


def test_the_end_of_the_connection_is_the_end_of_it(setting: Setting):
    over = setting.exit.over
    with associated(setting) as (control, there), udp() as sock:
        after(setting, there, sock)
        control.close()
        until(lambda: setting.exit.over > over)
        until(lambda: refused(there))


def test_when_the_exit_ends_it_the_connection_ends(setting: Setting):
    with associated(setting) as (control, there), udp() as sock:
        after(setting, there, sock)
        setting.exit.loop.call_soon_threadsafe(setting.exit.held[-1].write_eof)
        with contextlib.suppress(ConnectionResetError):
            assert control.recv(1) == b""
        until(lambda: refused(there))


def test_an_exit_without_datagrams_is_a_failure(setting: Setting):
    setting.exit.refuse = True
    try:
        with connect(setting.pair.socks_port) as control:
            control.sendall(GREETING + request("0.0.0.0", 0, 3))
            assert receive(control, 12)[:4] == b"\5\0\5\2"
            assert control.recv(1) == b""
    finally:
        setting.exit.refuse = False


def code_of_one_more(setting: Setting, opened: contextlib.ExitStack) -> int:
    control = opened.enter_context(connect(setting.pair.socks_port))
    control.sendall(GREETING + request("0.0.0.0", 0, 3))
    return receive(control, 12)[3]


def test_there_are_so_many_at_a_time(setting: Setting):
    over = setting.exit.over
    until(lambda: len(setting.exit.asked) == setting.exit.over)  # those of other tests
    with contextlib.ExitStack() as opened:
        codes = [code_of_one_more(setting, opened) for _ in range(258)]
        assert codes == [0] * 256 + [1] * 2
    until(lambda: setting.exit.over >= over + 256)
    with contextlib.ExitStack() as opened:
        until(lambda: code_of_one_more(setting, opened) == 0)


def test_a_flood_leaves_others_their_datagrams(setting: Setting):
    with (
        associated(setting) as (_, there),
        associated(setting) as (_, flooded),
        udp() as sock,
        udp() as flood,
    ):
        for _ in range(FLOOD):
            flood.sendto(datagram(bytes(500)), flooded)
        until(lambda: answered(sock, there))
    assert "Traceback" not in setting.pair.log("near")


def answered(sock: socket.socket, there: tuple[str, int]) -> bool:
    """Datagrams may be lost."""
    sock.settimeout(1)
    sock.sendto(datagram(b"still"), there)
    try:
        return sock.recv(65535) == datagram(b"still")
    except TimeoutError:
        return False


def refused(there: tuple[str, int]) -> bool:
    """Whether nobody has that port any more."""
    with udp(patience=0.1) as probe:
        probe.connect(there)
        try:
            probe.send(b"x")
            probe.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    return False


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
