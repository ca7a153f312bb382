"""Streams through real nodes: a line of three, started once for all tests here."""

import asyncio
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.client import (
    Code,
    Incoming,
    Listener,
    NodeAbsent,
    PortTaken,
    Stream,
    StreamRefused,
    StreamReset,
    Unreachable,
    connect_node,
)
from tests.support.mesh import Mesh, close_later, ends, line_of_three, pair

MIB = 1 << 20


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with line_of_three() as mesh:
        yield mesh


async def read_all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def write_all(stream: Stream, data: bytes) -> None:
    await stream.write(data)
    stream.write_eof()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    ours.settimeout(0)
    return ours, theirs


async def test_a_neighbour_echoes(mesh: Mesh) -> None:
    async with ends(mesh, "a", "r") as (a, r):
        near, far = await pair(a, r, 7)
        await near.write(b"hello")
        assert await far.read() == b"hello"
        await far.write(b"world")
        assert await near.read() == b"world"
        await near.aclose()
        await far.aclose()


async def test_greeting_reply_and_proved_origin_arrive(mesh: Mesh) -> None:
    async with ends(mesh) as (a, b):
        listener = await b.listen(7)

        async def answer() -> Incoming:
            incoming = await anext(listener)
            await (await incoming.accept(b"who are you")).aclose()
            return incoming

        async with asyncio.TaskGroup() as tasks:
            answered = tasks.create_task(answer())
            stream = await a.open_stream(mesh.key("b"), 7, b"knock knock")
        assert stream.reply == b"who are you"
        assert answered.result().greeting == b"knock knock"
        assert answered.result().origin == mesh.key("a")
        await stream.aclose()


async def test_32_mib_through_a_relay_arrive_unchanged(mesh: Mesh) -> None:
    data = os.urandom(32 * MIB)
    async with ends(mesh) as (a, b):
        before = await mesh.status("r")
        near, far = await pair(a, b, 7)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write_all(near, data))
            arrived = tasks.create_task(read_all(far))
        assert hashlib.sha256(arrived.result()).digest() == hashlib.sha256(data).digest()
        far.write_eof()
        assert await read_all(near) == b""
        assert await near.flow.closed() == (Code.DONE, 0, len(data))
        assert await far.flow.closed() == (Code.DONE, len(data), 0)
        after = await mesh.status("r")
    forth = [
        relay
        for relay in after.relays
        if (relay.neighbour, relay.onward) == (mesh.key("a"), mesh.key("b"))
    ]
    assert sum(r.octets for r in forth) - sum(r.octets for r in before.relays) >= len(data)
    assert mesh.key("b") not in (await mesh.status("a")).links


async def test_one_side_finishes_and_still_hears_the_other(mesh: Mesh) -> None:
    async with ends(mesh) as (a, b):
        near, far = await pair(a, b, 7)
        await write_all(near, b"request")
        assert await read_all(far) == b"request"
        await asyncio.sleep(0.1)
        await write_all(far, b"x" * 300_000)
        assert len(await read_all(near)) == 300_000
        assert (await near.flow.closed()).code is Code.DONE


async def test_a_port_nobody_listens_on(mesh: Mesh) -> None:
    async with ends(mesh) as (a, _b):
        with pytest.raises(StreamReset) as caught:
            await a.open_stream("b", 999)
        assert caught.value.code is Code.NO_LISTENER


async def test_an_app_declines_in_its_own_words(mesh: Mesh) -> None:
    async with ends(mesh) as (a, b):
        listener = await b.listen(7)

        async def decline() -> None:
            await (await anext(listener)).refuse(5, b"not you")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(decline())
            with pytest.raises(StreamRefused) as caught:
                await a.open_stream("b", 7)
        assert (caught.value.code, caught.value.reply) == (5, b"not you")


async def test_a_reset_reaches_the_other_end(mesh: Mesh) -> None:
    async with ends(mesh) as (a, b):
        near, far = await pair(a, b, 7)
        await near.write(b"something")
        await far.read()
        await near.reset()
        with pytest.raises(StreamReset) as caught:
            await far.read()
        assert caught.value.code is Code.RESET


async def test_the_reset_of_a_tcp_target_reaches_the_other_tcp_peer(mesh: Mesh) -> None:
    browser, client_side = tcp_pair()
    target, server_side = tcp_pair()
    loop = asyncio.get_running_loop()
    async with ends(mesh) as (a, b):
        listener = await b.listen(7)

        async def serve() -> None:
            await (await anext(listener)).attach(server_side)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve())
            flow = await (await a.open("b", 7)).attach(client_side, early=b"early ")
        await loop.sock_sendall(browser, b"bytes")
        got = b""
        while len(got) < 11:
            got += await loop.sock_recv(target, 100)
        assert got == b"early bytes"
        target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        target.close()
        async with asyncio.timeout(2):
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(browser, 1)
            assert (await flow.closed()).code is Code.TARGET_RESET
        browser.close()


async def test_an_idle_stream_is_reset(mesh: Mesh) -> None:
    browser, client_side = tcp_pair()
    async with ends(mesh) as (a, b):
        listener = await b.listen(7)

        async def serve() -> Stream:
            return await (await anext(listener)).accept()

        async with asyncio.TaskGroup() as tasks:
            served = tasks.create_task(serve())
            flow = await (await a.open("b", 7)).attach(client_side, idle=1)
        async with asyncio.timeout(5):
            assert (await flow.closed()).code is Code.IDLE
            close_later(served.result())
            with pytest.raises(StreamReset) as caught:
                await served.result().read()
            assert caught.value.code is Code.IDLE
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(browser, 1)
        browser.close()


async def test_a_reader_that_stops_holds_up_nobody_else(mesh: Mesh) -> None:
    async with ends(mesh) as (a, b):
        stuck, _unread = await pair(a, b, 7)
        near, far = await pair(a, b, 8)
        flood = asyncio.create_task(stuck.write(b"x" * 16 * MIB))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(write_all(near, b"y" * 8 * MIB))
            arrived = tasks.create_task(read_all(far))
        assert len(arrived.result()) == 8 * MIB
        assert not flood.done()
        await stuck.reset()
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)


async def test_both_directions_full_at_once_do_not_lock_up(mesh: Mesh) -> None:
    async with ends(mesh) as (a, b):
        streams = [await pair(a, b, 7) for _ in range(4)]
        async with asyncio.timeout(40), asyncio.TaskGroup() as tasks:
            results = []
            for near, far in streams:
                for one, other in ((near, far), (far, near)):
                    tasks.create_task(write_all(one, b"z" * 8 * MIB))
                    results.append(tasks.create_task(read_all(other)))
        assert [len(result.result()) for result in results] == [8 * MIB] * 8


async def test_500_streams_leave_no_descriptor_behind(mesh: Mesh) -> None:
    def descriptors() -> dict[str, int]:
        return {
            name: len(list(Path(f"/proc/{mesh.processes[name].pid}/fd").iterdir()))
            for name in ("a", "r", "b")
        }

    async with ends(mesh) as (a, b):
        before = descriptors()
        for _ in range(10):
            streams = [await pair(a, b, 7) for _ in range(50)]
            for number, (near, far) in enumerate(streams):
                if number % 2:
                    await near.reset()
                await near.aclose()
                await far.aclose()
            for near, far in streams:
                await near.flow.closed()
                await far.flow.closed()
        assert descriptors() == before
        assert (await mesh.status("a")).streams == 0
        assert (await mesh.status("b")).streams == 0


async def test_an_app_that_goes_takes_its_listener_and_streams_along(mesh: Mesh) -> None:
    async with ends(mesh) as (a, _), connect_node(mesh.socket("b")) as again:
        async with connect_node(mesh.socket("b")) as b:
            near, _far = await pair(a, b, 7)
            await b.listen(9)
        with pytest.raises(StreamReset) as caught:
            await near.read()
        assert caught.value.code is Code.APP_GONE
        await again.listen(9)


async def test_a_port_has_one_listener(mesh: Mesh) -> None:
    async with ends(mesh, "b", "b") as (one, other):
        listener = await one.listen(7)
        with pytest.raises(PortTaken, match="port 7 of node 'b'"):
            await other.listen(7)
        await listener.aclose()
        second: Listener = await other.listen(7)
        await second.aclose()


async def test_a_port_that_was_given_back_is_anothers_at_once(mesh: Mesh) -> None:
    async with ends(mesh, "b", "b") as apps:
        for turn in range(50):
            one = apps[turn % 2]
            listener = await one.listen(7)
            await listener.aclose()
            port = await one.bind(7)
            await port.aclose()


async def test_who_waits_at_a_listener_that_stops_hears_of_it_at_once(mesh: Mesh) -> None:
    async with ends(mesh) as (a, b):
        listener = await b.listen(7)
        asking = [asyncio.create_task(a.open_stream("b", 7, timeout=50.0)) for _ in range(3)]
        taken = await anext(listener)
        while listener._queue.qsize() < 2:
            await asyncio.sleep(0.01)
        await listener.aclose()
        async with await taken.accept():
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
        opened = [outcome for outcome in outcomes if isinstance(outcome, Stream)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, StreamReset)]
        assert (len(opened), len(refused)) == (1, 2)
        close_later(*opened)


async def test_unknown_nodes_and_absent_sockets_are_named(mesh: Mesh) -> None:
    async with connect_node(mesh.socket("a")) as a:
        with pytest.raises(Unreachable, match=r"no node 'zeta' is registered.*a, b, r"):
            await a.open("zeta", 7, timeout=6)
        with pytest.raises(Unreachable, match="this node itself"):
            await a.open("a", 7)
    with pytest.raises(NodeAbsent, match=r"node-zeta\.sock"):
        async with connect_node(mesh.socket("zeta")):
            pass


async def test_a_second_node_of_the_same_name_does_not_start(mesh: Mesh) -> None:
    process = mesh.spawn_again("a")
    assert await asyncio.to_thread(process.wait, 15) == 9
    assert "already answers" in mesh.log("a")
