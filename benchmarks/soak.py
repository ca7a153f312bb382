"""The broker under a mixed load for some minutes: do its memory and descriptors stay flat?

Everything that it does goes on at once: topics with readers fast, slow and deaf, queue groups, requests
plain, streamed and scattered, a durable topic that is filled, pulled and thinned out, visitors that come,
leave and drop out with a last will, strangers, denied commands, and scrapes of its pages. Rates are
moderate: a soak looks for what is kept, not for speed. Prints one line at each interval and a verdict; exit
code 1 when memory grew from the middle third to the last by more than `SLACK`, or when descriptors or
sessions are left over at the end.
"""

from __future__ import annotations

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
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

# Run as a script, this file's folder comes first on the path and `bus` would be benchmarks/bus.py.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

import msgspec  # noqa: E402
import psutil  # noqa: E402

from benchmarks import brokers, report  # noqa: E402
from bus import Address, Bus, KeyPair, Request, connect, keystore, signals, sockets, wire  # noqa: E402
from bus.errors import BusError  # noqa: E402
from bus.settings import load, save  # noqa: E402
from bus.signals import AccessEntry, ConsumerConfig, TopicConfig, pack  # noqa: E402

MAX_MINUTES = 600.0
SLACK = 0.05  # of the memory in the middle third
FLOOR = 2 << 20  # bytes that memory may grow by in any case: pages come and go
LEFT_OVER = 4  # descriptors more than before the load


# The load: one process.


class Load:
    """All that is done to the broker at once. `admin` may all, `app` not all, `stranger` is unknown."""

    def __init__(self, job: dict[str, str]) -> None:
        self.address = Address(job["endpoint"], job["key"])
        folder = Path(job["folder"])
        self.keys = {n: keystore.load(folder / f"{n}.key") for n in ("admin", "app", "stranger")}
        self.pages = job["pages"]
        self.context = sockets.new_context()
        self.stopping = asyncio.Event()
        self.done = dict.fromkeys(
            ("published", "asked", "stored", "visited", "denied", "scraped"), 0
        )

    async def run(self) -> None:
        """Until standard input ends."""
        async with asyncio.TaskGroup() as tasks:
            for work in (
                self.publish, self.read, self.lag, self.share, self.share, self.serve, self.ask,
                self.keep, self.visit, self.fall, self.be_denied, self.knock, self.be_deaf, self.scrape,
            ):  # fmt: skip
                tasks.create_task(work())
            await asyncio.to_thread(sys.stdin.readline)
            self.stopping.set()

    async def every(self, seconds: float) -> AsyncIterator[int]:
        """Count turns, `seconds` apart, until it is over."""
        number = 0
        while not self.stopping.is_set():
            yield number
            number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)

    @contextlib.asynccontextmanager
    async def joined(self, name: str, key: str = "admin") -> AsyncIterator[Bus]:
        async with connect(self.address, self.keys[key], name=name, timeout=30) as bus:
            yield bus

    async def publish(self) -> None:
        async with self.joined("publisher") as bus:
            async for _ in self.every(0.02):
                for _ in range(20):
                    await bus.publish("soak.topic", bytes(128))
                await bus.publish("soak.shared", bytes(64))
                for _ in range(4):
                    await bus.publish("soak.large", bytes(16 << 10))
                self.done["published"] += 25

    async def read(self) -> None:
        async with self.joined("reader") as bus:
            await self.read_on(bus, "soak.*", 0.0)

    async def lag(self) -> None:
        """Too slow for what comes: its own queue gives way."""
        async with self.joined("slow reader") as bus:
            await self.read_on(bus, "soak.topic", 0.01)

    async def share(self) -> None:
        async with self.joined("member") as bus:
            await self.read_on(bus, "soak.shared", 0.0, group="workers")

    async def read_on(self, bus: Bus, pattern: str, pause: float, group: str = "") -> None:
        subscription = await bus.subscribe(pattern, group=group)
        reading = asyncio.create_task(self._read(subscription, pause))
        await self.stopping.wait()
        reading.cancel()
        await asyncio.wait([reading])

    async def _read(self, subscription: AsyncIterator[object], pause: float) -> None:
        async for _ in subscription:
            if pause:
                await asyncio.sleep(pause)

    async def serve(self) -> None:
        async def chunks(request: Request) -> AsyncIterator[bytes]:
            for _ in range(8):
                yield request.body

        async with self.joined("server") as bus:
            await bus.serve("soak.echo", lambda request: request.body, name="echo", inflight=8)
            await bus.serve("soak.chunks", chunks, name="chunks")
            await self.stopping.wait()

    async def ask(self) -> None:
        async with self.joined("asker") as bus:
            async for number in self.every(0.02):
                with contextlib.suppress(
                    BusError
                ):  # the server may not be there yet, or not any more
                    await asyncio.gather(*[bus.request("soak.echo", bytes(64)) for _ in range(4)])
                    if number % 10 == 0:
                        async for _ in bus.stream("soak.chunks", bytes(1000)):
                            pass
                        async for _ in bus.gather("soak.echo", b"all"):
                            pass
                        await bus.request("soak.echo", b"once", idempotent=True)
                    self.done["asked"] += 4
                with contextlib.suppress(BusError):
                    await bus.request("soak.nobody", b"")

    async def keep(self) -> None:
        """A durable topic: stored, pulled, settled or dropped again, thinned out by its limit."""
        async with self.joined("keeper") as bus:
            await bus.request(
                signals.TOPIC_PUT, pack(TopicConfig("soak", ["soak.kept.>"], max_messages=2000))
            )
            await bus.request(
                signals.CONSUMER_PUT, pack(ConsumerConfig("soak", "worker", max_deliver=3))
            )
            async for number in self.every(0.05):
                await asyncio.gather(
                    *[
                        bus.store(f"soak.kept.{n}", bytes(200), message_id=f"{number}-{n}")
                        for n in range(4)
                    ]
                )
                self.done["stored"] += 4
                pulled = await bus.pull("soak", "worker", n=8)
                await bus.settle(pulled[1:])
                if pulled:
                    await pulled[0].nak()

    async def visit(self) -> None:
        async for number in self.every(0.1):
            with contextlib.suppress(BusError):
                async with self.joined(f"visitor {number}") as bus:
                    await bus.subscribe(f"soak.visit.{number}.>")
                    await bus.serve(f"soak.visit.{number}", lambda request: request.body)
                    await bus.request(f"soak.visit.{number}", b"me")
                    self.done["visited"] += 1

    async def fall(self) -> None:
        """Sessions that end without a word, so that their will is published."""
        async for number in self.every(0.2):
            await asyncio.to_thread(self._fall, number)

    def _fall(self, number: int) -> None:
        socket, monitor = sockets.dial(
            self.context, self.keys["admin"], self.address, max_message=2 << 20
        )
        hello = wire.Hello(name=f"fallen {number}", will="soak.topic")
        socket.send_multipart([wire.encode(hello), b"gone"])
        socket.poll(2000)
        sockets.close(socket)
        monitor.close(linger=0)

    async def be_denied(self) -> None:
        async with self.joined("app", "app") as bus:
            async for _ in self.every(0.05):
                with contextlib.suppress(BusError):
                    await bus.request("mesh.denied", b"")
                self.done["denied"] += 1

    async def knock(self) -> None:
        async for _ in self.every(0.5):
            await asyncio.to_thread(self._knock)

    def _knock(self) -> None:
        socket, monitor = sockets.dial(
            self.context, self.keys["stranger"], self.address, max_message=2 << 20
        )
        sockets.wait([monitor], 1.0)
        sockets.close(socket)
        monitor.close(linger=0)

    async def be_deaf(self) -> None:
        """Subscribes, reads nothing for a while, then leaves: its queue fills and is freed."""
        async for _ in self.every(0.3):
            await asyncio.to_thread(self._be_deaf)

    def _be_deaf(self) -> None:
        socket, monitor = sockets.dial(
            self.context, self.keys["admin"], self.address, max_message=2 << 20
        )
        socket.send(wire.encode(wire.Hello(name="deaf")))
        socket.send(wire.encode(wire.Subscribe(1, 1, "soak.large")))
        time.sleep(4)
        sockets.close(socket)
        monitor.close(linger=0)

    async def scrape(self) -> None:
        async for _ in self.every(2.0):
            for page in ("metrics", "sessions", "closed", "services", "topics"):
                await asyncio.to_thread(_read_page, f"{self.pages}/{page}")
            self.done["scraped"] += 1


def _read_page(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as page:
        body: bytes = page.read()
        return body


def worker() -> None:
    job = json.loads(sys.stdin.readline())

    async def work() -> dict[str, int]:
        load = Load(job)
        try:
            await load.run()
        finally:
            load.context.destroy(linger=0)
        return load.done

    print(json.dumps(asyncio.run(work())), flush=True)


# The measurement.


@dataclass(frozen=True)
class Sample:
    """The broker at one moment; the field names are those of `--json`."""

    seconds: float  # since the load began
    rss: int
    fds: int
    threads: int
    sessions: int
    queued_bytes: int
    messages_in: int
    messages_out: int
    lost: int
    cpu: float  # of one core, since the last sample


class Watched:
    """A broker with its pages, in a folder of its own; its log goes to a file."""

    def __init__(self, folder: Path) -> None:
        home = folder / "broker"
        endpoint = f"tcp://127.0.0.1:{brokers.free_port()}"
        subprocess.run(
            [*brokers.BROKER, "init", str(home), "--endpoint", endpoint],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._allow(home, "app", ["app"])
        keystore.create(home / "stranger.key")
        address = f"127.0.0.1:{brokers.free_port()}"
        config = home / "broker.json"
        save(config, msgspec.structs.replace(load(config), monitor=address))
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([*brokers.BROKER, "run", str(home)], stderr=log)
        self.pages = f"http://{address}"
        self.job = {
            "endpoint": endpoint, "key": keystore.load(home / "broker.key").public,
            "folder": str(home), "pages": self.pages,
        }  # fmt: skip
        self._process = psutil.Process(self.process.pid)
        self._cpu, self._at = 0.0, time.monotonic()
        self._wait()

    def _allow(self, home: Path, name: str, roles: list[str]) -> None:
        pair: KeyPair = keystore.create(home / f"{name}.key")
        access = keystore.load_access(home / "access.json")
        entry = AccessEntry(pair.public, name, roles)
        keystore.save_access(home / "access.json", access.with_entry(entry))

    def _wait(self) -> None:
        deadline = time.monotonic() + 15
        while True:
            try:
                _read_page(f"{self.pages}/healthz")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def sample(self, start: float) -> Sample:
        now = time.monotonic()
        varz = msgspec.json.decode(_read_page(f"{self.pages}/varz"), type=signals.Varz)
        with self._process.oneshot():
            rss, threads = self._process.memory_info().rss, self._process.num_threads()
            cpu = sum(self._process.cpu_times()[:2])
        share = (cpu - self._cpu) / max(now - self._at, 0.001)
        self._cpu, self._at = cpu, now
        return Sample(
            now - start, rss, self._process.num_fds(), threads, varz.sessions, varz.queued_bytes,
            varz.messages_in, varz.messages_out, varz.lost, share,
        )  # fmt: skip


@contextmanager
def watched() -> Iterator[Watched]:
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        broker = Watched(Path(folder))
        try:
            yield broker
        finally:
            broker.process.terminate()
            broker.process.wait(15)


def tell(sample: Sample, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(sample)), flush=True)
        return
    print(
        f"{sample.seconds:7.0f} s  {sample.rss / 2**20:6.1f} MiB  {sample.fds:4} descriptors"
        f"  {sample.threads:3} threads  {sample.sessions:4} sessions"
        f"  {sample.queued_bytes / 2**20:5.1f} MiB queued  {sample.messages_in:>10,} in"
        f"  {sample.messages_out:>10,} out  {sample.lost:>8,} lost  {100 * sample.cpu:3.0f} % of a core",
        flush=True,
    )


def soak(broker: Watched, seconds: float, interval: float, *, as_json: bool) -> list[Sample]:
    """Samples before, during (at each interval) and some seconds after the load."""
    start = time.monotonic()
    samples = [broker.sample(start)]
    tell(samples[0], as_json=as_json)
    with subprocess.Popen(
        [sys.executable, "-P", __file__, "--worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as load:  # fmt: skip
        assert load.stdin is not None
        assert load.stdout is not None
        load.stdin.write(json.dumps(broker.job) + "\n")
        load.stdin.flush()
        try:
            while time.monotonic() < start + seconds and load.poll() is None:
                time.sleep(interval)
                samples.append(broker.sample(start))
                tell(samples[-1], as_json=as_json)
            if load.poll() is not None:
                raise SystemExit("the load ended by itself")
            load.stdin.write("stop\n")
            load.stdin.flush()
            print(f"# done meanwhile: {load.stdout.readline().strip()}", file=sys.stderr)
        finally:
            if load.poll() is None:
                load.terminate()
    deadline = time.monotonic() + 40  # the silent are noticed after 30 s at most
    while (last := broker.sample(start)).sessions and time.monotonic() < deadline:
        time.sleep(1)
    samples.append(last)
    tell(last, as_json=as_json)
    return samples


def verdict(samples: list[Sample]) -> list[str]:
    """What is not flat; empty when all is."""
    first, *during, last = samples
    third = max(1, len(during) // 3)
    middle = statistics.median(sample.rss for sample in during[-2 * third : -third])
    end = statistics.median(sample.rss for sample in during[-third:])
    problems = []
    if end - middle > max(FLOOR, SLACK * middle):
        grown = f"{middle / 2**20:.1f} to {end / 2**20:.1f} MiB"
        problems.append(f"memory grew from the middle third to the last: {grown}")
    if last.fds > first.fds + LEFT_OVER:
        problems.append(f"{last.fds - first.fds} descriptors more than before the load")
    if last.sessions:
        problems.append(f"{last.sessions} sessions are left over")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, help=f"at most {MAX_MINUTES:.0f}")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between samples")
    parser.add_argument("--json", action="store_true", help="one JSON line a sample")
    parser.add_argument("--worker", action="store_true", help="internal: run the load")
    options = parser.parse_args()
    if options.worker:
        worker()
        return 0
    if not 0.1 <= options.minutes <= MAX_MINUTES or not 0.5 <= options.interval <= 600:
        parser.error(f"--minutes is 0.1 to {MAX_MINUTES:.0f}, --interval 0.5 to 600 seconds")
    print(f"# soak of {options.minutes:g} minutes; {report.machine()}", file=sys.stderr)
    with watched() as broker:
        samples = soak(broker, 60 * options.minutes, options.interval, as_json=options.json)
    problems = verdict(samples)
    print("# " + ("; ".join(problems) if problems else "flat"), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
