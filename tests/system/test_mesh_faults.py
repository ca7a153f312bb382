"""What goes wrong between machines, in network namespaces: no byte of a stream is lost, doubled or swapped.

Four nodes in a ring: two ways lead from a to c, over b and over d. A long stream runs both ways
meanwhile, and at its end both sides compare what they sent and what came.
"""

import asyncio
import contextlib
import hashlib
import random
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from nodes import api
from nodes.client import Stream, connect_node
from tests.support.mesh import both_ends
from tests.support.namespaces import SpreadMesh, spread_mesh

RING = {"a": ["b"], "b": ["c"], "c": ["d"], "d": ["a"]}
LINKS = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]
BESIDE = {"b": ["a", "c"], "d": ["c", "a"]}
PATIENCE = 40
MORE = 16 << 20  # bytes: more than can have been on the way


@pytest.fixture
def mesh() -> Iterator[SpreadMesh]:
    with spread_mesh(RING) as mesh:
        asyncio.run(mesh.linked(*LINKS))
        yield mesh


class Half:
    """One direction of a long stream: random bytes, and what both ends make of them."""

    def __init__(self, source: Stream, target: Stream, seed: int) -> None:
        self.arrived = 0
        self.sent, self.came = hashlib.sha256(), hashlib.sha256()
        self._source, self._target = source, target
        self._random = random.Random(seed)
        self._over = False

    async def send(self) -> None:
        pool = self._random.randbytes(1 << 20)
        while not self._over:
            at = self._random.randrange(1 << 19)
            piece = pool[at : at + self._random.randrange(1, 1 << 18)]
            self.sent.update(piece)
            await self._source.write(piece)
        self._source.write_eof()

    async def receive(self) -> None:
        while data := await self._target.read(1 << 18):
            self.came.update(data)
            self.arrived += len(data)

    async def goes_on(self) -> None:
        """More comes than can have been on the way."""
        wanted = self.arrived + MORE
        while self.arrived < wanted:
            await asyncio.sleep(0.02)

    def finish(self) -> None:
        self._over = True


class Long:
    """A stream that is busy both ways."""

    def __init__(self, near: Stream, far: Stream) -> None:
        self.halves = Half(near, far, 1), Half(far, near, 2)
        self.ends = near, far

    async def goes_on(self) -> None:
        async with asyncio.timeout(PATIENCE):
            for half in self.halves:
                await half.goes_on()


@contextlib.asynccontextmanager
async def long_stream(mesh: SpreadMesh, streams: int = 1) -> AsyncIterator[list[Long]]:
    """Streams between a and c, busy meanwhile; at the end all must have come as it was sent."""
    async with connect_node(mesh.socket("a")) as near, connect_node(mesh.socket("c")) as far:
        found = [Long(*await both_ends(near, far, 7)) for _ in range(streams)]
        halves = [half for long in found for half in long.halves]
        async with asyncio.TaskGroup() as tasks:
            for half in halves:
                tasks.create_task(half.send())
                tasks.create_task(half.receive())
            for long in found:
                await long.goes_on()
            yield found
            for half in halves:
                half.finish()
        for long in found:
            for end in long.ends:
                await end.aclose()
        for half in halves:
            assert half.came.hexdigest() == half.sent.hexdigest()


async def relay_in_use(mesh: SpreadMesh) -> str:
    """The node between a and c, once another way stands by."""
    names = {mesh.key(name): name for name in BESIDE}
    ends = {mesh.key("a"), mesh.key("c")}
    async with mesh.bus() as bus, asyncio.timeout(PATIENCE):
        while True:
            routes = api.unpack(await bus.request(api.NODES), api.Nodes).routes
            pair = [route for route in routes if {route.path[0], route.path[-1]} == ends]
            if len(pair) > 1:
                return next(names[route.path[1]] for route in pair if route.active)
            await asyncio.sleep(0.1)


def other(relay: str) -> str:
    return "d" if relay == "b" else "b"


async def test_a_killed_relay_costs_no_byte_and_takes_over_again_when_it_is_back(
    mesh: SpreadMesh,
) -> None:
    async with long_stream(mesh) as (long,):
        for _ in range(2):  # the second time over the one that came back
            relay = await relay_in_use(mesh)
            mesh.kill(relay)
            await long.goes_on()
            mesh.start_node(relay, *BESIDE[relay])
            await mesh.linked(*((relay, beside) for beside in BESIDE[relay]))


async def test_a_stopped_relay_costs_no_byte_and_neither_does_its_awakening(
    mesh: SpreadMesh,
) -> None:
    async with long_stream(mesh) as (long,):
        relay = await relay_in_use(mesh)
        process = mesh.processes[relay]
        process.send_signal(signal.SIGSTOP)
        try:
            await mesh.unlinked("a", relay)
            await long.goes_on()
        finally:
            process.send_signal(signal.SIGCONT)
        await mesh.linked(*LINKS)
        await long.goes_on()


async def test_a_cable_that_is_cut_without_a_word_and_mended_costs_no_byte(
    mesh: SpreadMesh,
) -> None:
    async with long_stream(mesh) as (long,):
        relay = await relay_in_use(mesh)
        mesh.spaces.cut("a", relay)
        await mesh.unlinked("a", relay)
        await long.goes_on()
        mesh.spaces.mend("a", relay)
        await mesh.linked(*LINKS)
        await relay_in_use(mesh)
        mesh.kill(other(relay))  # what was mended carries
        await long.goes_on()


async def test_cables_that_fail_by_turns_cost_no_byte(mesh: SpreadMesh) -> None:
    async with long_stream(mesh) as (long,):
        await relay_in_use(mesh)
        for near, far in [("a", "b"), ("d", "c"), ("b", "c"), ("a", "d")]:
            mesh.spaces.cut(near, far)
            await mesh.unlinked(near, far)
            await long.goes_on()
            mesh.spaces.mend(near, far)
            await mesh.linked((near, far))
            await relay_in_use(mesh)


async def test_ends_that_are_cut_off_from_all_for_a_while_go_on_afterwards(
    mesh: SpreadMesh,
) -> None:
    async with long_stream(mesh) as (long,):
        for relay in BESIDE:
            mesh.spaces.cut("a", relay)
        for relay in BESIDE:
            await mesh.unlinked("a", relay)
        for relay in BESIDE:
            mesh.spaces.mend("a", relay)
        await long.goes_on()


async def test_many_streams_that_fill_both_directions_all_move(mesh: SpreadMesh) -> None:
    async with long_stream(mesh, streams=4) as found:
        for long in found:
            await long.goes_on()


async def test_without_a_manager_the_standby_takes_over_and_a_new_manager_lays_another(
    mesh: SpreadMesh,
) -> None:
    async with long_stream(mesh) as (long,):
        relay = await relay_in_use(mesh)
        mesh.kill("manager")
        mesh.kill(relay)
        await long.goes_on()
        mesh.start_manager()
        mesh.start_node(relay, *BESIDE[relay])
        await mesh.linked(*LINKS)
        await relay_in_use(mesh)
        mesh.kill(other(relay))
        await long.goes_on()


async def test_an_end_that_sleeps_for_some_seconds_goes_on_where_it_was(mesh: SpreadMesh) -> None:
    async with long_stream(mesh) as (long,):
        process = mesh.processes["c"]
        process.send_signal(signal.SIGSTOP)
        try:
            await mesh.unlinked("b", "c")
            await mesh.unlinked("d", "c")
        finally:
            process.send_signal(signal.SIGCONT)
        await long.goes_on()
