"""Many streams of one session through real nodes: each gets a share, no trouble is another's."""

import asyncio
import resource
from collections.abc import Iterator

import pytest

from nodes.client import Code, Incoming, Node, Stream, StreamReset
from nodes.flows import MAX_STREAMS
from tests.support.mesh import Mesh, close_later, ends, line_of_three

KIB, MIB = 1 << 10, 1 << 20
PATIENCE = 90.0
AT_ONCE = 256  # streams that are asked for


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with line_of_three() as mesh:
        yield mesh


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Two for each stream, at each app and at each node."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def opened(near: Node, far: Node, count: int) -> list[tuple[Stream, Stream]]:
    """So many streams, near and far ends."""
    listener = await far.listen(80)
    far_ends: dict[bytes, Stream] = {}

    async def accept(incoming: Incoming) -> None:
        far_ends[incoming.greeting] = await incoming.accept()

    async def open_one(number: int) -> Stream:
        return await near.open_stream("b", 80, b"%d" % number, timeout=PATIENCE)

    async with asyncio.TaskGroup() as tasks:
        opening = [tasks.create_task(open_one(number)) for number in range(count)]
        for _ in range(count):
            tasks.create_task(accept(await anext(listener)))
    await listener.aclose()
    pairs = [(task.result(), far_ends[b"%d" % n]) for n, task in enumerate(opening)]
    for pair in pairs:
        close_later(*pair)
    return pairs


async def test_of_200_streams_that_all_push_none_gets_less_than_half_of_another(mesh: Mesh) -> None:
    async with ends(mesh, patience=PATIENCE) as (near, far):
        streams = await opened(near, far, 200)
        came = [0] * len(streams)
        enough = asyncio.Event()

        async def push(stream: Stream) -> None:
            while True:
                await stream.write(bytes(64 * KIB))

        async def count(number: int, stream: Stream) -> None:
            while True:
                came[number] += len(await stream.read())
                if min(came) > MIB:
                    enough.set()

        tasks = [asyncio.create_task(push(near_end)) for near_end, _ in streams]
        tasks += [asyncio.create_task(count(n, end)) for n, (_, end) in enumerate(streams)]
        await enough.wait()
        slowest, fastest = min(came), max(came)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert slowest >= fastest / 2


async def test_readers_that_stop_and_apps_that_do_not_answer_stop_nobody_else(mesh: Mesh) -> None:
    async with ends(mesh, patience=PATIENCE) as (near, far):
        stopped = await opened(near, far, 50)
        stuck = [asyncio.create_task(end.write(bytes(4 * MIB))) for end, _ in stopped]
        silent = await far.listen(81)
        asking = [
            asyncio.create_task(near.open("b", 81, early=bytes(32 * KIB), timeout=PATIENCE))
            for _ in range(100)
        ]
        for _ in asking:
            await anext(silent)
        ((client, server),) = await opened(near, far, 1)
        for number in range(20):
            data = bytes([number]) * 100 * KIB
            writing = asyncio.create_task(client.write(data))
            got = b""
            while len(got) < len(data):
                got += await server.read()
            await writing
            assert got == data
        for task in [*stuck, *asking]:
            task.cancel()
        await asyncio.gather(*stuck, *asking, return_exceptions=True)


async def test_thousands_of_streams_of_a_session_each_get_their_own_bytes(mesh: Mesh) -> None:
    rounds, at_once = 8, 250
    async with ends(mesh, patience=PATIENCE) as (near, far):
        for turn in range(rounds):
            streams = await opened(near, far, at_once)
            for number, (client, server) in enumerate(streams):
                await client.write(b"%d of %d" % (number, turn))
                client.write_eof()
                await server.write(b"answer %d" % number)
                server.write_eof()
            for number, (client, server) in enumerate(streams):
                assert await server.read() == b"%d of %d" % (number, turn)
                assert await client.read() == b"answer %d" % number
                await client.aclose()
                await server.aclose()
    assert (await mesh.status("a")).streams <= at_once


async def test_4096_streams_are_open_at_once_and_one_more_is_refused(
    mesh: Mesh, many_descriptors: None
) -> None:
    async with ends(mesh, patience=PATIENCE) as (near, far):
        streams: list[tuple[Stream, Stream]] = []
        while len(streams) < MAX_STREAMS:
            streams += await opened(near, far, AT_ONCE)
        with pytest.raises(StreamReset) as refused:
            await near.open("b", 80)
        assert refused.value.code is Code.LIMIT
        for number, (client, server) in enumerate(streams):
            await client.write(b"%d" % number)
            assert await server.read() == b"%d" % number
            await server.write(b"answer %d" % number)
            assert await client.read() == b"answer %d" % number
        await streams[7][0].aclose()
        await streams[7][1].aclose()
        async with asyncio.timeout(PATIENCE):
            while (await mesh.status("a")).streams == MAX_STREAMS:
                await asyncio.sleep(0.05)
        await opened(near, far, 1)
