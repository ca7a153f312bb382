"""Datagrams, first data and ports that are not for everybody, between real nodes."""

import asyncio
from collections.abc import Iterator

import pytest

from nodes.client import Code, DatagramPort, PortTaken, StreamReset, connect_node
from nodes.errors import DatagramTooLarge
from tests.support.mesh import Mesh, ends, line_of_three


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with line_of_three() as mesh:
        yield mesh


async def echo(port: DatagramPort) -> None:
    async for data, origin, source in port:
        await port.send_to(origin, source, data)


async def test_a_datagram_comes_with_its_proved_sender_and_is_answered(mesh: Mesh) -> None:
    async with ends(mesh) as (near, far), await far.bind(53) as asked, await near.bind() as asking:
        await asking.send_to("b", 53, b"query")
        received = await asked.receive()
        assert received == (b"query", mesh.key("a"), asking.port)
        await asked.send_to(received.origin, received.port, b"answer")
        assert await asking.receive() == (b"answer", mesh.key("b"), 53)


@pytest.mark.parametrize("size", [0, 1, 1200, 60_000])
async def test_datagrams_of_all_sizes_arrive_whole(mesh: Mesh, size: int) -> None:
    async with ends(mesh) as (near, far), await far.bind(53) as port, await near.bind() as asking:
        answering = asyncio.create_task(echo(port))
        await asking.send_to("b", 53, b"x" * size)
        assert (await asking.receive()).data == b"x" * size
        answering.cancel()


async def test_one_that_is_too_large_is_an_error_that_says_so(mesh: Mesh) -> None:
    async with ends(mesh) as (near, _), await near.bind() as port:
        with pytest.raises(DatagramTooLarge, match="60001 bytes for port 53 of 'b'"):
            await port.send_to("b", 53, bytes(60_001))


async def test_a_datagram_port_is_one_apps_at_a_time(mesh: Mesh) -> None:
    async with ends(mesh) as (near, _), connect_node(mesh.socket("a"), "third") as third:
        port = await near.bind(99)
        with pytest.raises(PortTaken, match="datagram port 99 of node 'a'"):
            await third.bind(99)
        await port.aclose()
        async with await near.bind(99):
            pass


async def test_datagrams_and_streams_have_ports_of_their_own(mesh: Mesh) -> None:
    async with ends(mesh) as (near, _):
        listener = await near.listen(98)
        async with await near.bind(98) as port:
            assert port.port == listener.port


async def test_datagrams_of_nodes_that_may_not_are_dropped_and_counted(mesh: Mesh) -> None:
    async with ends(mesh) as (near, far), await near.bind() as asking:
        async with (
            await far.bind(60, [mesh.key("r")]),
            await far.bind(61, [mesh.key("a")]) as open_,
        ):
            await asking.send_to("b", 60, b"no")
            await asking.send_to("b", 62, b"nobody")
            await asking.send_to("b", 61, b"yes")
            assert (await open_.receive()).data == b"yes"
        counters = (await mesh.status("b")).counters
        assert counters["datagram_not_allowed"] == 1
        assert counters["datagram_no_port"] == 1


async def test_a_closed_port_ends_its_iteration(mesh: Mesh) -> None:
    async with ends(mesh) as (near, _):
        port = await near.bind()
        waiting = asyncio.create_task(anext(port))
        await asyncio.sleep(0)
        await port.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_first_data_comes_with_the_asking_and_before_all_else(mesh: Mesh) -> None:
    async with ends(mesh) as (near, far):
        listener = await far.listen(80)
        opening = asyncio.create_task(near.open_stream("b", 80, b"hi", early=b"GET "))
        incoming = await anext(listener)
        async with await incoming.accept() as server:
            assert incoming.greeting == b"hi"
            assert await server.read() == b"GET "  # and nobody has written a byte yet
            async with await opening as client:
                await client.write(b"/")
                client.write_eof()
                assert await server.read() == b"/"
                server.write_eof()
                assert await client.read() == b""
                closed = await client.flow.closed()
                assert (closed.code, closed.bytes_out) == (Code.DONE, 5)


async def test_a_stream_of_a_node_that_may_not_is_refused_before_the_app_hears(mesh: Mesh) -> None:
    async with ends(mesh) as (near, far):
        closed = await far.listen(81, allow=[mesh.key("r")])
        with pytest.raises(StreamReset, match="not for this node") as refused:
            await near.open("b", 81)
        assert refused.value.code is Code.NOT_ALLOWED
        await closed.aclose()
        open_ = await far.listen(81, allow=[mesh.key("a")])
        opening = asyncio.create_task(near.open_stream("b", 81))
        assert (await anext(open_)).origin == mesh.key("a")
        opening.cancel()
