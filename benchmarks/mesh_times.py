"""Rows of the mesh that are times: opening a stream, failing over, echo under bulk, planning."""

import asyncio
import contextlib
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import slow_link
from nodes import api
from nodes.api import LinkState, Registration
from nodes.client import Listener, Stream, connect_node
from nodes.manager.pairs import Build
from nodes.manager.planner import Planner
from nodes.manager.topology import Topology
from tests.support.mesh import both_ends
from tests.support.namespaces import Namespaces, SpreadMesh

MBIT, DELAY_MS, QUEUE_MS = 50, 20, 100  # 40 ms there and back; the queue of a common router


async def opening(mesh: SpreadMesh, times: int) -> tuple[list[float], list[float]]:
    """Milliseconds from asking for a stream to its first byte, and round trips on one that stands."""
    async with connect_node(mesh.socket("a")) as near, connect_node(mesh.socket("c")) as far:
        listener = await far.listen(7)
        serving = asyncio.create_task(_greet(listener))
        opened = []
        for number in range(times + 1):
            begun = time.perf_counter()
            async with await near.open_stream("c", 7) as stream:
                await stream.read()
                if number:  # the first one looks for a route
                    opened.append((time.perf_counter() - begun) * 1e3)
        serving.cancel()
        there, here = await both_ends(near, far, 8)
        return opened, await echoes(there, here, times, 0.0)


async def _greet(listener: Listener) -> None:
    """Accept, say a byte, and wait for the end."""
    kept = []
    async for incoming in listener:
        stream = await incoming.accept()
        await stream.write(b"!")
        kept.append(stream)


async def echoes(near: Stream, far: Stream, times: int, pause: float) -> list[float]:
    """Milliseconds that 64 bytes need there and back."""

    async def answer() -> None:
        while data := await far.read():
            await far.write(data)

    answering = asyncio.create_task(answer())
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        await near.write(bytes(64))
        left = 64
        while left:
            left -= len(await near.read(left))
        found.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(pause)
    answering.cancel()
    return found


async def failover(mesh: SpreadMesh) -> float:
    """Kill the relay that a running stream uses; the longest time without a byte, in s."""
    async with connect_node(mesh.socket("a")) as near, connect_node(mesh.socket("c")) as far:
        there, here = await both_ends(near, far, 9)
        arrivals: list[float] = []

        async def write() -> None:
            while True:
                await there.write(bytes(1 << 16))

        async def read() -> None:
            while await here.read():
                arrivals.append(time.perf_counter())

        tasks = [asyncio.create_task(write()), asyncio.create_task(read())]
        relay = await _relay_in_use(mesh)
        await asyncio.sleep(1)
        killed = time.perf_counter()
        mesh.kill(relay)
        await asyncio.sleep(5)
        for task in tasks:
            task.cancel()
    found = [at for at in arrivals if at > killed - 0.1]
    gap = max((b - a for a, b in itertools.pairwise(found)), default=5.0)
    mesh.start_node(relay, *{"b": ["c", "a"], "d": ["a", "c"]}[relay])
    await mesh.linked((relay, "a"), (relay, "c"))
    return gap if found and found[-1] > killed + 4.5 else 5.0


async def _relay_in_use(mesh: SpreadMesh) -> str:
    """The node between a and c, once there are two ways."""
    ends = {mesh.key("a"), mesh.key("c")}
    names = {mesh.key(name): name for name in "bd"}
    async with mesh.bus() as bus, asyncio.timeout(20):
        while True:
            found = api.unpack(await bus.request(api.NODES), api.Nodes).routes
            pair = [route for route in found if {route.path[0], route.path[-1]} == ends]
            if len(pair) > 1:
                return next(names[route.path[1]] for route in pair if route.active)
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def slow_pair() -> Iterator[SpreadMesh]:
    """Two nodes joined by an emulated slow link."""
    spaces = Namespaces("ab")
    command = [sys.executable, "-P", slow_link.__file__, spaces.of("a"), spaces.of("b")]
    command += [str(number) for number in (MBIT, DELAY_MS, QUEUE_MS)]
    try:
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as link,
            tempfile.TemporaryDirectory(prefix="mesh-") as folder,
        ):
            mesh = SpreadMesh(Path(folder), spaces)
            try:
                assert link.stdout is not None
                link.stdout.readline()
                for name, other in (("a", "b"), ("b", "a")):
                    spaces.up(name, slow_link.DEVICE)
                    spaces.route(name, other, slow_link.DEVICE)
                mesh.start_broker("ab")
                mesh.start_manager()
                mesh.start_node("b")
                mesh.start_node("a", "b")
                yield mesh
            finally:
                mesh.stop()
                link.terminate()
    finally:
        spaces.close()


async def echo_under_bulk(mesh: SpreadMesh, seconds: float) -> tuple[float, float, float]:
    """p99 in ms of an idle link and under bulk, and the MB/s that bulk had."""
    async with connect_node(mesh.socket("a")) as near, connect_node(mesh.socket("b")) as far:
        there, here = await both_ends(near, far, 7)
        times = int(seconds / 0.06)
        idle = _p99(await echoes(there, here, times, 0.01))
        bulk_there, bulk_here = await both_ends(near, far, 8)
        arrived = 0

        async def write() -> None:
            while True:
                await bulk_there.write(bytes(1 << 16))

        async def read() -> None:
            nonlocal arrived
            while data := await bulk_here.read():
                arrived += len(data)

        tasks = [asyncio.create_task(write()), asyncio.create_task(read())]
        await asyncio.sleep(2)
        there, here = await both_ends(near, far, 9)
        before, begun = arrived, time.perf_counter()
        busy = _p99(await echoes(there, here, times, 0.01))
        rate = (arrived - before) / (time.perf_counter() - begun) / 1e6
        for task in tasks:
            task.cancel()
        return idle, busy, rate


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def routes_1000(changes: int) -> list[float]:
    """Milliseconds until the plan is made anew after a link was lost; 1,000 pairs have routes."""
    rnd = random.Random(5)  # the same mesh each time
    keys = [f"{number:040d}" for number in range(1000)]
    delays = _links(rnd, keys)
    beside: dict[str, list[LinkState]] = {key: [] for key in keys}
    for (a, b), delay in delays.items():
        beside[a].append(LinkState(b, rtt=delay))
        beside[b].append(LinkState(a, rtt=delay))
    topology = Topology()
    for key in keys:
        topology.register(
            key, Registration(f"n{key[-5:]}", "tcp://x", bytes(16), 0, 0, beside[key]), 0.0
        )
    serial = itertools.count(1)
    planner = Planner(topology, lambda: f"{next(serial):016x}")

    def carry_out(actions: list, now: float) -> None:  # type: ignore[type-arg]
        for action in actions:
            if isinstance(action, Build):
                carry_out(planner.built(action.ends, action.route, action.path, now), now)

    for _ in range(1000):
        a, b = rnd.sample(keys, 2)
        carry_out(planner.wanted(a, b, 2.0), 2.0)
    took = []
    for a, b in rnd.sample(sorted(delays), changes):
        begun = time.perf_counter()
        actions = planner.changed(topology.link(a, b, up=False, now=3.0), 3.0)
        took.append((time.perf_counter() - begun) * 1e3)
        carry_out(actions, 3.0)
        carry_out(planner.changed(topology.link(a, b, up=True, now=3.0), 3.0), 3.0)
    return took


def _links(rnd: random.Random, keys: list[str]) -> dict[tuple[str, str], float]:
    """Two rings through all nodes, in random order: four links each."""
    found = {}
    for _ in range(2):
        order = rnd.sample(keys, len(keys))
        for a, b in zip(order, [*order[1:], order[0]], strict=True):
            found[min(a, b), max(a, b)] = rnd.uniform(0.001, 0.1)
    return found
