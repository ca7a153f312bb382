"""An exit that serves some keys only, and gives each its limits; over two real nodes."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from apps.socks.figures import STATS, Stats
from apps.socks.messages import PORT, Association, Destination, encode, read_refusal
from apps.socks.packets import Packet, write_packet
from apps.socks.protocol import Reply
from nodes.client import (
    Code,
    Node,
    NodeError,
    Stream,
    StreamRefused,
    StreamReset,
    connect_node,
)
from tests.support.nameserver import nameserver
from tests.support.pair import Pair, running_pair
from tests.support.web import counting_server

LOCAL = ("--allow", "127.0.0.1/32")
PATIENCE = 20
_OPENED: list[Stream] = []  # by the test that runs, and closed at its end

pytestmark = pytest.mark.timeout(200)  # each begins with a broker, a manager and two nodes


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_pair(*LOCAL) as running:
        yield running


async def stats(pair: Pair) -> Stats:
    async with pair.bus() as bus:
        body = await bus.request(STATS, to=pair.key("far"), timeout=5)
        return msgspec.msgpack.decode(body, type=Stats)


@contextlib.asynccontextmanager
async def exit_with(pair: Pair, *arguments: str) -> AsyncIterator[Node]:
    """Start the exit anew with these arguments; a program at alpha, when the exit listens."""
    pair.kill("far")
    pair.start_far(*LOCAL, *arguments)
    async with asyncio.timeout(150):
        await pair.exit_listens()
        async with connect_node(pair.socket("alpha"), "near") as node:
            yield node
            for stream in _OPENED:
                await stream.aclose()
            _OPENED.clear()


async def opened(node: Node, port: int, host: str = "127.0.0.1") -> Stream:
    greeting = encode(Destination(host, port))
    stream = await node.open_stream("beta", PORT, greeting, timeout=PATIENCE)
    _OPENED.append(stream)
    return stream


async def refusal(node: Node, port: int, host: str = "127.0.0.1") -> tuple[Reply, str]:
    with pytest.raises(StreamRefused) as caught:
        await node.open("beta", PORT, encode(Destination(host, port)), timeout=PATIENCE)
    found = read_refusal(caught.value.reply)
    return found.code, found.reason


@contextlib.contextmanager
def source(size: int) -> Iterator[int]:
    """A server that sends so many bytes to everybody and ends."""
    import threading

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=send, args=(client,), daemon=True).start()

    def send(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.sendall(bytes(size))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


async def drained(stream: Stream) -> int:
    count = 0
    while data := await stream.read():
        count += len(data)
    return count


async def test_only_nodes_that_are_named_may_use_an_exit(pair: Pair):
    async with exit_with(pair, f"--allow-key={pair.key('beta')}") as node:
        with pytest.raises(StreamReset) as caught:
            await opened(node, 80)
        assert caught.value.code is Code.NOT_ALLOWED
        assert (await stats(pair)).access == "keys"
    async with exit_with(pair, f"--allow-key={pair.key('alpha')}") as node:
        with counting_server() as port:
            stream = await opened(node, port)
            stream.write_eof()
            assert await stream.read() == b"0"


async def test_a_key_has_so_many_connections_at_once(pair: Pair):
    async with exit_with(pair, "--limit", "connections=2") as node:
        with counting_server() as port:
            first, _ = await opened(node, port), await opened(node, port)
            code, reason = await refusal(node, port)
            assert code is Reply.NOT_ALLOWED
            assert reason == "it has 2 connections already"
            first.write_eof()
            assert await first.read() == b"0"
            async with asyncio.timeout(PATIENCE):
                while (await stats(pair)).connections > 1:
                    await asyncio.sleep(0.05)
            await opened(node, port)
    found = await stats(pair)
    assert found.refused == {"connections": 1}


async def test_a_key_with_limits_of_its_own_has_those(pair: Pair):
    limits = ("--limit=connections=1", f"--limit={pair.key('alpha')},connections=2")
    async with exit_with(pair, *limits) as node:
        with counting_server() as port:
            for _ in range(2):
                await opened(node, port)
            assert (await refusal(node, port))[0] is Reply.NOT_ALLOWED


async def test_associations_have_their_limit(pair: Pair):
    async with exit_with(pair, "--limit", "associations=1") as node, await node.bind() as port:
        asked = [encode(Association(number, port.port)) for number in (1, 2)]
        first = await node.open_stream("beta", PORT, asked[0])
        with pytest.raises(StreamRefused) as caught:
            await node.open_stream("beta", PORT, asked[1])
        assert read_refusal(caught.value.reply).code is Reply.NOT_ALLOWED
        await first.reset()


async def test_an_exit_may_carry_no_datagrams(pair: Pair):
    async with exit_with(pair, "--max-associations", "0") as node:
        with pytest.raises(StreamRefused) as caught:
            await node.open_stream("beta", PORT, encode(Association(1, 1)))
        assert read_refusal(caught.value.reply).code is Reply.COMMAND_UNSUPPORTED


async def test_a_rate_holds_for_all_connections_of_a_key_together(pair: Pair):
    """Four downloads of 500 kB at 1 MB/s: 2 MB less the burst cannot take less than 1.75 s."""
    async with exit_with(pair, "--limit", "rate=1M") as node:
        with source(500_000) as port:
            began = time.monotonic()
            streams = [await opened(node, port) for _ in range(4)]
            sizes = await asyncio.gather(*map(drained, streams))
            assert (
                time.monotonic() - began > 1.2
            )  # what came before the clock was started is little
            assert sizes == [500_000] * 4


async def test_what_is_limited_ends_as_orderly_as_what_is_not(pair: Pair):
    async with exit_with(pair, "--limit", "rate=100M") as node:
        with counting_server() as port:
            stream = await opened(node, port)
            await stream.write(bytes(300_000))
            stream.write_eof()
            assert await stream.read() == b"300000"
            assert await stream.read() == b""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE)
            stream = await opened(node, server.getsockname()[1])
            client, _ = server.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()  # a reset
            with pytest.raises(StreamReset):
                await drained(stream)
            stream = await opened(node, server.getsockname()[1])
            client, _ = server.accept()
            client.settimeout(PATIENCE)
            await stream.reset()
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(client.recv, 1)
            client.close()


async def test_a_volume_that_is_used_up_cuts_what_runs_and_refuses_what_comes(pair: Pair):
    async with exit_with(pair, "--limit", "volume=1M/hour") as node:
        with source(3_000_000) as port:
            stream = await opened(node, port)
            with pytest.raises(StreamReset):
                await drained(stream)
            code, reason = await refusal(node, port)
            assert code is Reply.NOT_ALLOWED
            assert "volume of 1000000 bytes is used up" in reason
        (mine,) = (await stats(pair)).keys
        assert 1_000_000 <= mine.used <= 1_200_000
        volumes = pair.folder / "socks-volumes.json"
        async with asyncio.timeout(PATIENCE):
            while not volumes.exists() or f"[{mine.used}," not in volumes.read_text():
                await asyncio.sleep(0.05)
        pair.kill("far")  # as kill -9: a limit outlives it
        pair.start_far(*LOCAL, "--limit", "volume=1M/hour")
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    code, reason = await refusal(node, 80)
                except NodeError:
                    await asyncio.sleep(0.1)
                else:
                    break
        assert "used up" in reason
    volumes.unlink()


async def test_datagrams_count_for_rate_and_volume(pair: Pair):
    async with (
        exit_with(pair, "--limit", "rate=1k,volume=100k/day") as node,
        await node.bind() as port,
        await node.open_stream("beta", PORT, encode(Association(1, port.port))),
    ):
        message = write_packet(Packet(1, "127.0.0.1", 9, bytes(40_000)))
        async with asyncio.timeout(PATIENCE):
            while not (await stats(pair)).dropped.get("rate"):
                await port.send_to("beta", PORT, message)
                await asyncio.sleep(0.02)
        (mine,) = (await stats(pair)).keys
        assert 40_000 <= mine.bytes_out <= 80_000
    (pair.folder / "socks-volumes.json").unlink(missing_ok=True)


async def test_names_are_resolved_by_the_server_that_is_named_and_checked_where_they_point(
    pair: Pair,
):
    zone = {
        "good.test": ["60 A 127.0.0.1"],
        "rebound.test": ["60 A 127.0.0.2", "60 AAAA ::ffff:127.0.0.1"],
        "other.test": ["60 A 127.0.0.1"],
    }
    async with nameserver(zone) as server:
        place = f"127.0.0.1:{server.place[1]}"
        async with exit_with(pair, "--resolver", place, "--deny", "other.test") as node:
            with counting_server() as port:
                stream = await opened(node, port, "good.test")
                stream.write_eof()
                assert await stream.read() == b"0"
                assert (await refusal(node, port, "rebound.test"))[0] is Reply.NOT_ALLOWED
                assert (await refusal(node, port, "other.test"))[0] is Reply.NOT_ALLOWED
                assert (await refusal(node, port, "none.test"))[0] is Reply.HOST_UNREACHABLE
            found = (await stats(pair)).resolver
        assert not any("other" in question for question in server.asked)
        assert found.entries >= 3


async def test_with_only_what_is_not_named_is_out_of_reach(pair: Pair):
    zone = {"good.test": ["60 A 192.0.2.1"], "bad.test": ["60 A 127.0.0.1"]}
    async with nameserver(zone) as server:
        place = f"127.0.0.1:{server.place[1]}"
        words = ("--only", "--allow", "*.test:80", "--resolver", place)
        async with exit_with(pair, *words) as node:
            with counting_server() as port:
                assert "allowed" in (await refusal(node, 443, "1.1.1.1"))[1]
                assert "documentation" in (await refusal(node, 80, "good.test"))[1]
                await opened(node, port, "bad.test")  # --allow 127.0.0.1/32 opens it
