"""What happens when processes of the mesh die, and when they come back."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from nodes.client import (
    Code,
    Node,
    NodeLost,
    StreamReset,
    connect_node,
)
from tests.support.mesh import Mesh, both_ends, line_of_three


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with line_of_three() as mesh:
        yield mesh


class Transfer:
    """A TCP peer that receives for ever through `node`; the far end sends from `target`."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.browser = socket.create_connection(server.getsockname())
            self.handed_over, _ = server.accept()
        self.browser.settimeout(0)
        self.received = 0

    async def receive(self) -> None:
        """Ends with the error that the browser sees."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self.browser, 1 << 16):
            self.received += len(data)

    async def started(self) -> None:
        while self.received < 1 << 20:
            await asyncio.sleep(0.01)

    async def goes_on(self, receiver: asyncio.Task[None]) -> None:
        """Another 16 MiB come: more than can have been on the way."""
        target = self.received + (16 << 20)
        async with asyncio.timeout(30):
            while self.received < target:
                assert not receiver.done()
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def transfer(near: Node, far: Node) -> AsyncIterator[tuple[Transfer, asyncio.Task[None]]]:
    """A download in full swing."""
    listener = await far.listen(7)

    async def send() -> None:
        async with await (await anext(listener)).accept() as stream:
            with contextlib.suppress(StreamReset):
                while True:
                    await stream.write(b"x" * 65536)

    job = Transfer()
    async with asyncio.TaskGroup() as tasks:
        sender = tasks.create_task(send())
        await (await near.open(far.name, 7)).attach(job.handed_over)
        receiver = asyncio.ensure_future(job.receive())  # noqa: TID251 - its error is the result
        await job.started()
        yield job, receiver
        sender.cancel()
    job.browser.close()


async def test_a_killed_node_resets_its_own_tcp_peers_at_once(mesh: Mesh) -> None:
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        async with transfer(a, b) as (_job, receiver):
            mesh.kill("a")
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionResetError):
                    await receiver
        async with asyncio.timeout(5):
            await a.lost.wait()
        with pytest.raises(NodeLost):
            await a.listen(9)


async def test_a_far_node_that_was_killed_resets_what_it_carried_when_it_is_back(
    mesh: Mesh,
) -> None:
    async with (
        connect_node(mesh.socket("a")) as a,
        connect_node(mesh.socket("b")) as b,
        transfer(a, b) as (_job, receiver),
    ):
        mesh.kill("b")
        mesh.start_node("b", "r")
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionResetError):
                await receiver


async def test_a_stream_outlives_its_only_relay_that_is_killed_and_comes_back(mesh: Mesh) -> None:
    async with (
        connect_node(mesh.socket("a")) as a,
        connect_node(mesh.socket("b")) as b,
        transfer(a, b) as (job, receiver),
    ):
        mesh.kill("r")
        mesh.start_node("r")
        await mesh.linked(("a", "r"), ("b", "r"))
        await job.goes_on(receiver)


async def test_a_stream_outlives_a_relay_that_is_frozen(mesh: Mesh) -> None:
    async with (
        connect_node(mesh.socket("a")) as a,
        connect_node(mesh.socket("b")) as b,
        transfer(a, b) as (job, receiver),
    ):
        mesh.processes["r"].send_signal(signal.SIGSTOP)
        try:
            await mesh.unlinked("a", "r")
        finally:
            mesh.processes["r"].send_signal(signal.SIGCONT)
        await mesh.linked(("a", "r"), ("b", "r"))
        await job.goes_on(receiver)


async def test_a_node_that_comes_back_is_linked_and_used_again(mesh: Mesh) -> None:
    for victim in ("r", "b"):
        mesh.kill(victim)
        mesh.start_node(victim, *(["r"] if victim == "b" else []))
        await mesh.linked(("a", "r"), ("b", "r"))
        async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
            near, far = await both_ends(a, b, 7)
            async with near, far:
                await near.write(b"again")
                assert await far.read() == b"again"


async def test_without_the_manager_all_that_stands_goes_on(mesh: Mesh) -> None:
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        near, far = await both_ends(a, b, 7)
        mesh.kill("manager")
        async with near, far:
            await near.write(b"still here")
            assert await far.read() == b"still here"
        # New streams over the standing route need no manager either.
        near, far = await both_ends(a, b, 8)
        async with near, far:
            await far.write(b"and new")
            assert await near.read() == b"and new"
        # A new manager learns everything again, and can make routes.
        mesh.start_manager()
        await mesh.linked(("a", "r"), ("b", "r"))
        async with connect_node(mesh.socket("r")) as r:
            near, far = await both_ends(b, r, 9)
            async with near, far:
                await near.write(b"new route")
                assert await far.read() == b"new route"


async def test_a_killed_broker_does_not_disturb_the_data(mesh: Mesh) -> None:
    async with (
        connect_node(mesh.socket("a")) as a,
        connect_node(mesh.socket("b")) as b,
        transfer(a, b) as (job, receiver),
    ):
        mesh.kill("broker")
        await job.goes_on(receiver)
        mesh.run_broker()
        await mesh.linked(("a", "r"), ("b", "r"))
        await job.goes_on(receiver)


async def test_a_node_that_is_told_to_stop_ends_and_resets_what_it_carried(mesh: Mesh) -> None:
    async with connect_node(mesh.socket("a")) as a, connect_node(mesh.socket("b")) as b:
        near, far = await both_ends(a, b, 7)
        mesh.processes["b"].terminate()
        with pytest.raises(StreamReset) as caught:
            await near.read()
        assert caught.value.code is Code.STOPPING
        assert await asyncio.to_thread(mesh.processes["b"].wait, 10) == 0
        await near.aclose()
        await far.aclose()
    assert not mesh.socket("b").exists()
