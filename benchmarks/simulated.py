"""A cluster to measure with: a real first host, and hosts and apps that are only sessions on its bus.

Each simulated host has joined as a real one does, has a session with its own key and answers what command
lines ask daemons; each of its apps has a session with its own key, let in by the first host, and answers
pings. What is measured is the command line as a whole process: start, one broker, all answers, output.

    python -m benchmarks.simulated --hosts 20 --apps 50
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from bus import join, sockets
from bus.client import Bus, Request, connect
from bus.identity import Address, KeyPair
from bus.signals import PING, Done, Pinged, pack, unpack
from tests.support.stack import free_port
from viscript.cluster import talk
from viscript.cluster.numbers import Block
from viscript.commands import list as listing
from viscript.commands import ping
from viscript.records import Status

VISCRIPT = [sys.executable, "-P", "-m", "viscript.cli"]
AT_ONCE = 16  # apps that connect at a time
EVERY = 5.0  # seconds between two reports


@dataclass(frozen=True)
class Simulated:
    """A running one: the home of its first host."""

    home: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "VISCRIPT_HOME": str(self.home)}
        return subprocess.run(
            [*VISCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    def timed(self, *arguments: str) -> tuple[float, str]:
        """Seconds of a whole command, and its output; AssertionError when it fails."""
        began = time.perf_counter()
        done = self.run(*arguments)
        passed = time.perf_counter() - began
        if done.returncode != 0:
            raise AssertionError(f"viscript {' '.join(arguments)}: {done.stderr}")
        return passed, done.stdout


@contextlib.contextmanager
def simulated(folder: Path, hosts: int, apps: int) -> Iterator[Simulated]:
    """`hosts` hosts with `apps` apps each, all of them on the bus."""
    made = Simulated(folder / "home")
    made.home.mkdir(mode=0o700)
    port = free_port()
    endpoint = f"127.0.0.1:{port}"
    config = {"apps": {}, "settings": {"broker": {"endpoint": f"tcp://{endpoint}"}}}
    (made.home / "config.yaml").write_text(yaml.safe_dump(config))
    worker = None
    try:
        made.timed("up", "--detach")
        invite = ("host", "invite", "--endpoint", endpoint, "--json", "--name")
        strings = [json.loads(made.timed(*invite, f"sim-{n}")[1])["join"] for n in range(hosts)]
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.simulated", "--serve", str(apps)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("\n".join(strings) + "\n\n")
        worker.stdin.flush()
        if worker.stdout.readline().strip() != "ready":
            raise AssertionError("the simulated hosts did not come up")
        yield made
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()
        made.run("down")


# The other side: all simulated hosts in one process.


class Host:
    """One host: what it answers, and its apps."""

    def __init__(self, address: Address, key: KeyPair, bus: Bus) -> None:
        self._address = address
        self._key = key
        self._bus = bus
        self._launches: list[Status] = []

    async def come_up(
        self, apps: int, room: asyncio.Semaphore, stack: contextlib.AsyncExitStack
    ) -> None:
        people = sockets.new_keypair()
        hello = talk.Hello("sim", people.public)
        welcome = unpack(await self._bus.request(talk.HELLO, pack(hello), timeout=30), talk.Welcome)
        self._first = welcome.directory.first.key
        numbers: list[int] = []
        while len(numbers) < apps:
            block = unpack(await self._ask(talk.NUMBERS, Done()), Block)
            numbers += range(block.first, block.last + 1)
        keys = [sockets.new_keypair() for _ in range(apps)]
        for index, key in enumerate(keys):
            await self._ask(talk.ADMIT, talk.App(key.public, f"app-{index}", "app"))
            async with room:
                app = await stack.enter_async_context(
                    connect(self._address, key, name=f"app-{index}", timeout=30)
                )
            app.answer(PING, lambda _: pack(Pinged(time.time())))
            self._launches.append(
                Status(
                    id=numbers[index], app=f"app-{index}", state="running", pid=1, key=key.public,
                    since=time.time(), args=[], started=time.time(), groups=(),
                )
            )  # fmt: skip
        self._bus.answer(listing.SUBJECT, self._list)
        self._bus.answer(ping.SUBJECT, self._ping)
        await self._ask(talk.REPORT, talk.Report(self._launches))

    async def report(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self._ask(talk.REPORT, talk.Report(self._launches))

    async def _ask(self, subject: str, body: object) -> bytes:
        return await self._bus.request(subject, pack(body), to=self._first, timeout=60)

    async def _list(self, _: Request) -> bytes:
        return pack(listing.Reply(self._launches))

    async def _ping(self, request: Request) -> bytes:
        """All that is asked for, each over the bus; a keeper there is none to ask."""
        asked = unpack(request.body, ping.Request)
        wanted = set(asked.words)
        chosen = [x for x in self._launches if not wanted or str(x.id) in wanted]
        pinged = await asyncio.gather(*(self._ping_one(x) for x in chosen))
        return pack(ping.Reply(list(pinged)))

    async def _ping_one(self, status: Status) -> ping.Pinged:
        began = time.perf_counter()
        await self._bus.request(PING, pack(Done()), to=status.key, timeout=5)
        passed = time.perf_counter() - began
        level = ping.Level(ok=True, seconds=passed)
        return ping.Pinged(
            status.id, status.app, status.state, level, level, ping.Level(ok=None), passed
        )


async def serve(strings: list[str], apps: int) -> None:
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        hosts = []
        for text in strings:
            meant, key = join.parse(text), sockets.new_keypair()
            await asyncio.to_thread(join.enrol, meant.address, key, "sim", meant.token)
            bus = await stack.enter_async_context(connect(meant.address, key, name="sim"))
            hosts.append(Host(meant.address, key, bus))
        room = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(host.come_up(apps, room, stack) for host in hosts))
        for host in hosts:
            tasks.create_task(host.report())
        print("ready", flush=True)


def measure(made: Simulated, launches: int, rounds: int) -> dict[str, float]:
    """Medians in seconds: `la` and `ping` of everything, each a whole process."""
    la, pings = [], []
    for _ in range(rounds):
        seconds, text = made.timed("la", "--json")
        assert len(json.loads(text)) == launches, len(json.loads(text))
        la.append(seconds)
        seconds, text = made.timed("ping", "--json")
        found = json.loads(text)
        assert len(found) == launches, len(found)
        assert all(each["bus"]["ok"] for each in found)
        pings.append(seconds)
    return {"la-1000": statistics.median(la), "ping-1000": statistics.median(pings)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--apps", type=int, default=50, help="of each host")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        strings = list(iter(sys.stdin.readline, "\n"))
        asyncio.run(serve([text.strip() for text in strings], given.serve))
        return
    with tempfile.TemporaryDirectory(prefix="simulated-") as folder:
        began = time.perf_counter()
        with simulated(Path(folder), given.hosts, given.apps) as made:
            print(
                f"{given.hosts} hosts x {given.apps} apps up in {time.perf_counter() - began:.1f} s"
            )
            for name, seconds in measure(made, given.hosts * given.apps, given.rounds).items():
                print(f"{name}: {seconds:.3f} s, median of {given.rounds}")


if __name__ == "__main__":
    main()
