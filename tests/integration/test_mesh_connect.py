"""`connect` of an app: the descriptor goes with the request, through real nodes."""

import asyncio
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.client import Code, Node, NodeError, StreamRefused, StreamReset, connect_node
from tests.support.mesh import Mesh, running_mesh

LISTENING = 21


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with running_mesh({"a": [], "b": ["a"]}) as mesh:
        asyncio.run(mesh.linked(("a", "b")))
        yield mesh


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    ours.settimeout(0)
    return ours, theirs


async def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        assert more
        data += more
    return data


async def answer_one(node: Node, port: int, reply: bytes | None) -> None:
    """Echo to the first that asks; refuse it without a reply."""
    listener = await node.listen(port)
    incoming = await anext(listener)
    if reply is None:
        await incoming.refuse(9, b"not you")
    else:
        stream = await incoming.accept(reply)
        while data := await stream.read():
            await stream.write(data)
        await stream.aclose()
    await listener.aclose()


async def test_the_head_comes_first_and_the_rest_is_the_stream(mesh: Mesh) -> None:
    ours, theirs = tcp_pair()
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        answering = asyncio.create_task(answer_one(b, LISTENING, b""))
        await asyncio.get_running_loop().sock_sendall(ours, b"early ")
        flow = await opened(a, theirs, LISTENING)
        assert theirs.fileno() == -1
        await asyncio.get_running_loop().sock_sendall(ours, b"and late")
        assert await receive(ours, 18) == b"headearly and late"
        ours.shutdown(socket.SHUT_WR)
        assert await asyncio.get_running_loop().sock_recv(ours, 1) == b""
        assert (await flow.closed()).code is Code.DONE
        await answering
    ours.close()


async def opened(node: Node, sock: socket.socket, port: int):
    """Until somebody listens there."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await node.connect(sock, "b", port, head=b"head")
            except StreamReset:
                await asyncio.sleep(0.05)


async def test_who_is_refused_has_its_socket_still(mesh: Mesh) -> None:
    ours, theirs = tcp_pair()
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        answering = asyncio.create_task(answer_one(b, LISTENING, None))
        with pytest.raises(StreamRefused) as refused:
            await opened(a, theirs, LISTENING)
        assert (refused.value.code, refused.value.reply) == (9, b"not you")
        await asyncio.get_running_loop().sock_sendall(theirs, b"sorry")
        theirs.close()
        assert await receive(ours, 5) == b"sorry"
        assert await asyncio.get_running_loop().sock_recv(ours, 1) == b""  # an orderly end
        await answering
    ours.close()


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_what_was_not_opened_leaves_no_descriptor_behind(mesh: Mesh) -> None:
    pid = mesh.processes["a"].pid
    async with connect_node(mesh.socket("a")) as a:
        ours, theirs = tcp_pair()
        with pytest.raises(NodeError):
            await a.connect(theirs, "b", 4000)
        before = descriptors(pid)
        for target, patience in ("b", 10), ("nobody", 0.02):
            for _ in range(10):
                with pytest.raises(NodeError):
                    await a.connect(theirs, target, 4000, timeout=patience)
        assert descriptors(pid) <= before
        ours.close()
        theirs.close()


async def test_an_app_that_leaves_while_it_waits_ends_its_connections(mesh: Mesh) -> None:
    ours, theirs = tcp_pair()
    async with connect_node(mesh.socket("b")) as b:
        listener = await b.listen(LISTENING + 1)
        async with connect_node(mesh.socket("a")) as a:
            asking = asyncio.create_task(a.connect(theirs, "b", LISTENING + 1))
            await anext(listener)  # which nobody answers
        with pytest.raises(NodeError):
            await asking
        theirs.close()
        async with asyncio.timeout(10):
            assert await asyncio.get_running_loop().sock_recv(ours, 1) == b""
    ours.close()


async def test_what_is_no_stream_socket_is_refused(mesh: Mesh) -> None:
    reading, writing = os.pipe()
    with (
        os.fdopen(reading) as pipe,
        os.fdopen(writing, "w"),
        socket.socket() as unconnected,
    ):
        async with connect_node(mesh.socket("a")) as a:
            for useless in (pipe, unconnected):
                with pytest.raises(StreamReset) as refused:
                    await a.connect(useless, "b", LISTENING)
                assert refused.value.code is Code.TARGET_RESET


async def test_what_is_cancelled_may_be_asked_for_elsewhere(mesh: Mesh) -> None:
    ours, theirs = tcp_pair()
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        slow = await b.listen(LISTENING + 2)
        asking = asyncio.create_task(a.connect(theirs, "b", LISTENING + 2, head=b"slow "))
        waiting = await anext(slow)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        answering = asyncio.create_task(answer_one(b, LISTENING, b""))
        await opened(a, theirs, LISTENING)
        await waiting.refuse(1)  # too late for anything
        await asyncio.get_running_loop().sock_sendall(ours, b"x")
        assert await receive(ours, 5) == b"headx"
        ours.close()
        await answering


async def test_cancelled_after_it_was_accepted_it_is_cut(mesh: Mesh) -> None:
    ours, theirs = tcp_pair()
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        listener = await b.listen(LISTENING + 3)
        asking = asyncio.create_task(a.connect(theirs, "b", LISTENING + 3, head=b"head"))
        stream = await (await anext(listener)).accept()
        async with asyncio.timeout(10):
            while not select.select([ours], [], [], 0)[0]:  # the node has carried it out, and ...
                time.sleep(0.01)  # ... this process has not been able to hear of it
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert theirs.fileno() == -1
        with pytest.raises(StreamReset):
            await stream.read()
        await stream.aclose()
    ours.close()
