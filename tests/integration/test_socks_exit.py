"""The exit of the SOCKS pair, asked over two real nodes by a program that says what it likes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from apps.socks.figures import STATS, Stats
from apps.socks.messages import (
    PORT,
    Association,
    Destination,
    encode,
    read_associated,
    read_refusal,
)
from apps.socks.packets import Packet, read_packet, write_packet
from apps.socks.protocol import Reply
from nodes.client import DatagramPort, Node, NodeError, Stream, StreamRefused, connect_node
from tests.support.pair import Pair, running_pair
from tests.support.web import counting_server

PATIENCE = 20

pytestmark = pytest.mark.timeout(200)  # each begins with a broker, a manager and two nodes


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_pair(
        "--allow", "127.0.0.1/32", "--deny", "*:7", "--deny", "*.denied.test"
    ) as running:
        yield running


@contextlib.asynccontextmanager
async def near(pair: Pair) -> AsyncIterator[Node]:
    await pair.exit_listens()
    async with asyncio.timeout(150), connect_node(pair.socket("alpha"), "near") as node:
        yield node


async def stats(pair: Pair) -> Stats:
    async with pair.bus() as bus:
        body = await bus.request(STATS, to=pair.key("far"), timeout=5)
        return msgspec.msgpack.decode(body, type=Stats)


async def refusal(node: Node, greeting: bytes) -> Reply:
    with pytest.raises(StreamRefused) as caught:
        await node.open("beta", PORT, greeting, timeout=PATIENCE)
    return read_refusal(caught.value.reply).code


class Echo(asyncio.DatagramProtocol):
    """Sends back what comes: `answers` times, or what `burst` says."""

    def __init__(self) -> None:
        self.came: list[tuple[bytes, tuple[str, int]]] = []
        self.answers = 1
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self.came.append((data, source))
        for _ in range(self.answers):
            self.transport.sendto(data, source)

    @property
    def port(self) -> int:
        number: int = self.transport.get_extra_info("sockname")[1]
        return number


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[Echo]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    try:
        yield protocol
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def associated(
    node: Node, number: int = 1
) -> AsyncIterator[tuple[DatagramPort, Stream, int]]:
    """A port of the near node with one association: the port, its stream, the exit's port."""
    async with await node.bind() as port:
        stream = await node.open_stream(
            "beta", PORT, encode(Association(number, port.port)), timeout=PATIENCE
        )
        answer = read_associated(stream.reply)
        assert answer is not None
        async with stream:
            yield port, stream, answer.port


async def receive(port: DatagramPort) -> Packet:
    async with asyncio.timeout(PATIENCE):
        packet = read_packet((await port.receive()).data)
    assert packet is not None
    return packet


async def exchange(port: DatagramPort, at: int, packet: Packet) -> Packet:
    """What comes back; it is sent again while nothing does, since datagrams may be lost."""
    async with asyncio.timeout(PATIENCE):
        while True:
            await port.send_to("beta", at, write_packet(packet))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    return await receive(port)


async def until(pair: Pair, reason: str, count: int, *again: tuple[DatagramPort, bytes]) -> None:
    """Wait until the exit has dropped so many datagrams for that reason; send these until it has."""
    async with asyncio.timeout(PATIENCE):
        turn = 0
        while (await stats(pair)).dropped.get(reason, 0) < count:
            if turn % 20 == 0:
                for port, message in again:
                    await port.send_to("beta", PORT, message)
            turn += 1
            await asyncio.sleep(0.05)


async def test_a_datagram_goes_out_and_its_answer_comes_back(pair: Pair):
    async with near(pair) as node, echo() as target, associated(node, 7) as (port, _, at):
        for host in ("127.0.0.1", "localhost", "2130706433"):
            found = await exchange(port, at, Packet(7, host, target.port, b"question"))
            assert found == Packet(7, "127.0.0.1", target.port, b"question")
        assert len({source for _, source in target.came}) == 1  # one port for all it sends


async def test_large_datagrams_pass_and_too_large_ones_are_counted(pair: Pair):
    async with near(pair) as node, echo() as target, associated(node) as (port, _, at):
        data = bytes(50_000)
        found = await exchange(port, at, Packet(1, "127.0.0.1", target.port, data))
        assert found.data == data
        large = write_packet(Packet(1, "127.0.0.1", target.port, bytes(59_500)))
        await until(pair, "too_large", 1, (port, large))


async def test_associations_of_one_port_are_told_apart_by_their_number(pair: Pair):
    async with near(pair) as node, echo() as target, associated(node, 1) as (port, _, at):
        other = await node.open_stream("beta", PORT, encode(Association(2, port.port)))
        async with other:
            for number in (1, 2):
                packet = Packet(number, "127.0.0.1", target.port, b"%d" % number)
                found = await exchange(port, at, packet)
                while found.number != number:  # one of the other's, that was thought lost
                    found = await receive(port)
                assert found == packet
        assert len({source for _, source in target.came}) == 2


async def test_what_nobody_asked_for_does_not_come_back(pair: Pair):
    async with near(pair) as node, echo() as target, associated(node) as (port, _, at):
        await exchange(port, at, Packet(1, "127.0.0.1", target.port, b"here"))
        door = target.came[0][1]
        before = (await stats(pair)).dropped.get("unasked", 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(20):
                stranger.sendto(b"intruder", door)
        await until(pair, "unasked", before + 20)
        found = await exchange(port, at, Packet(1, "127.0.0.1", target.port, b"again"))
        assert found.data in {b"here", b"again"}


async def test_an_exit_amplifies_nothing(pair: Pair):
    """One small question is answered with far more than the mesh would carry for it."""
    async with near(pair) as node, echo() as target, associated(node) as (port, _, at):
        before = await stats(pair)
        await exchange(port, at, Packet(1, "127.0.0.1", target.port, b"x"))
        door = target.came[0][1]
        seen = 0
        while seen < 3 << 20:
            for _ in range(20):
                target.transport.sendto(bytes(30_000), door)
            seen += 600_000
            await asyncio.sleep(0.02)
        await until(pair, "unasked", before.dropped.get("unasked", 0) + 1)
        after = await stats(pair)
        assert after.bytes_in - before.bytes_in <= 1 << 20


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("10.0.0.1", 53, "denied"),
        ("169.254.169.254", 53, "denied"),
        ("0xa9fea9fe", 53, "denied"),
        ("127.0.0.2", 53, "denied"),
        ("::ffff:127.0.0.1", 53, "denied"),
        ("64:ff9b::7f00:1", 53, "denied"),
        ("255.255.255.255", 53, "denied"),
        ("224.0.0.251", 5353, "denied"),
        ("127.0.0.1", 7, "denied"),
        ("a.denied.test", 53, "denied"),
        ("no.invalid", 53, "no_name"),
        ("a..b", 53, "no_name"),
        ("127.0.0.1", 0, "no_port"),
    ],
)
async def test_the_policy_holds_for_datagrams(pair: Pair, host: str, port: int, reason: str):
    before = (await stats(pair)).dropped.get(reason, 0)
    async with near(pair) as node, associated(node) as (door, _, at):
        assert at == PORT
        await until(pair, reason, before + 1, (door, write_packet(Packet(1, host, port, b"x"))))


async def test_datagrams_of_no_association_and_garbage_are_dropped(pair: Pair):
    before = await stats(pair)
    async with near(pair) as node, associated(node, 5) as (port, _, at):
        assert at == PORT
        strays = before.dropped.get("no_association", 0)
        stray = write_packet(Packet(6, "127.0.0.1", 53, b"x"))
        await until(pair, "no_association", strays + 1, (port, stray))
        for garbage in (b"", b"\0\0\0\5", b"\0\0\0\5\3\0", b"\xff" * 50):
            count = (await stats(pair)).dropped.get("garbage", 0)
            await until(pair, "garbage", count + 1, (port, garbage))
        async with await node.bind() as other:  # the right number from another port
            strays = (await stats(pair)).dropped.get("no_association", 0)
            stray = write_packet(Packet(5, "127.0.0.1", 53, b"x"))
            await until(pair, "no_association", strays + 1, (other, stray))


async def test_an_association_ends_with_its_stream(pair: Pair):
    async with near(pair) as node, echo() as target, associated(node, 3) as (port, stream, at):
        packet = Packet(3, "127.0.0.1", target.port, b"x")
        await exchange(port, at, packet)
        await stream.reset()
        async with asyncio.timeout(PATIENCE):
            while (await stats(pair)).associations:
                await asyncio.sleep(0.05)
        before, came = (await stats(pair)).dropped.get("no_association", 0), len(target.came)
        await until(pair, "no_association", before + 1, (port, write_packet(packet)))
        assert len(target.came) == came


async def test_who_uses_a_number_again_has_a_new_association(pair: Pair):
    async with near(pair) as node, echo() as target, associated(node, 3) as (port, first, at):
        packet = Packet(3, "127.0.0.1", target.port, b"x")
        await exchange(port, at, packet)
        again = await node.open_stream("beta", PORT, encode(Association(3, port.port)))
        await first.reset()
        async with asyncio.timeout(PATIENCE):
            while (await stats(pair)).associations > 1:
                await asyncio.sleep(0.05)
        async with again:
            await exchange(port, at, packet)
        assert len({source for _, source in target.came}) == 2


async def test_an_association_that_says_something_on_its_stream_is_over(pair: Pair):
    async with near(pair) as node, associated(node) as (_, stream, _at):
        await stream.write(b"nothing is said here")
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(NodeError):
                await stream.read()


@pytest.mark.parametrize(
    "greeting",
    [b"", b"garbage", msgspec.msgpack.encode({"kind": "icmp"}), b"\x91" * 4000],
)
async def test_a_greeting_that_is_none_is_refused(pair: Pair, greeting: bytes):
    async with near(pair) as node:
        assert await refusal(node, greeting) is Reply.GENERAL


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.2", Reply.NOT_ALLOWED),
        ("0x7f.2", Reply.NOT_ALLOWED),
        ("[::ffff:127.0.0.1]", Reply.NOT_ALLOWED),
        ("64:ff9b::127.0.0.1", Reply.NOT_ALLOWED),
        ("2002:7f00:1::", Reply.NOT_ALLOWED),
        ("a.denied.test", Reply.NOT_ALLOWED),
        ("a.denied.test.", Reply.NOT_ALLOWED),
        ("A.DENIED.TEST", Reply.NOT_ALLOWED),
        ("nowhere.invalid", Reply.HOST_UNREACHABLE),
        ("a b", Reply.HOST_UNREACHABLE),
        ("\uff11\uff12\uff17.0.0.1", Reply.HOST_UNREACHABLE),
    ],
)
async def test_the_policy_holds_for_connections(pair: Pair, host: str, code: Reply):
    async with near(pair) as node:
        assert await refusal(node, encode(Destination(host, 80))) is code


async def test_what_the_exit_did_is_told(pair: Pair):
    with counting_server() as port:
        async with near(pair) as node:
            before = await stats(pair)
            stream = await node.open_stream("beta", PORT, encode(Destination("127.0.0.1", port)))
            await stream.write(b"12345")
            stream.write_eof()
            assert await stream.read() == b"5"
            await stream.aclose()
            async with asyncio.timeout(PATIENCE):
                while (after := await stats(pair)).connections:
                    await asyncio.sleep(0.05)
    assert after.opened == before.opened + 1
    assert (after.node, after.key, after.port) == ("beta", pair.key("beta"), PORT)
    (mine,) = after.keys
    assert mine.key == pair.key("alpha")
    assert after.bytes_out - before.bytes_out == 5
    assert after.bytes_in - before.bytes_in == 1
    assert after.access == "all"
