"""The bus against NATS' Python client through nats-server, alternating in one run.

Ours runs as shipped: CURVE, access checks on every message, the asyncio client at both ends. NATS runs
in clear text without permissions. Publisher, subscriber and server are processes of their own.

Rows: pubsub-1to1-128 (128-byte messages, delivered per second) and reqrep-single-p50 (one request at a
time, median round trip).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Run as a script, this file's folder comes first on the path and `bus` would be this file.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

import nats  # noqa: E402

from benchmarks import report  # noqa: E402
from bus import Address, KeyPair, Request, connect, keystore  # noqa: E402

SIZE = 128  # bytes a message
SUBJECT = "bench.topic"
SERVICE = "bench.echo"


# The workers: one process each, told by JSON on standard input, telling one JSON line at the end.


def worker(role: str) -> None:
    job = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(WORKERS[role](job))), flush=True)


def ready() -> None:
    print("ready", flush=True)


def told_to_go() -> None:
    sys.stdin.readline()


def ours(job: dict[str, str]) -> tuple[Address, KeyPair]:
    return Address(job["endpoint"], job["key"]), keystore.load(Path(job["key_file"]))


async def our_subscriber(job: dict[str, str]) -> dict[str, float]:
    count = int(job["count"])
    async with connect(*ours(job)) as bus:
        subscription = await bus.subscribe(SUBJECT)
        ready()
        seen = 0
        async for message in subscription:
            assert len(message.body) == SIZE
            seen += 1
            if seen == count:
                break
        return {"end": time.monotonic(), "lost": subscription.lost}


async def our_publisher(job: dict[str, str]) -> dict[str, float]:
    count, body = int(job["count"]), bytes(SIZE)
    async with connect(*ours(job)) as bus:
        ready()
        told_to_go()
        start = time.monotonic()
        for _ in range(count):
            await bus.publish(SUBJECT, body)
        await bus.request("$SYS.info")  # everything before it has reached the broker
        return {"start": start}


async def our_server(job: dict[str, str]) -> dict[str, float]:
    def echo(request: Request) -> bytes:
        return request.body

    async with connect(*ours(job)) as bus:
        await bus.serve(SERVICE, echo)
        ready()
        await asyncio.to_thread(told_to_go)
        return {}


async def our_requester(job: dict[str, str]) -> dict[str, float]:
    async with connect(*ours(job)) as bus:
        return await round_trips(int(job["count"]), lambda body: bus.request(SERVICE, body))


async def nats_subscriber(job: dict[str, str]) -> dict[str, float]:
    count, seen, done = int(job["count"]), 0, asyncio.Event()

    async def arrived(message: nats.aio.msg.Msg) -> None:
        nonlocal seen
        assert len(message.data) == SIZE
        seen += 1
        if seen == count:
            done.set()

    client = await nats.connect(job["endpoint"])
    await client.subscribe(SUBJECT, cb=arrived)
    await client.flush()
    ready()
    await done.wait()
    end = time.monotonic()
    await client.close()
    return {"end": end, "lost": 0}


async def nats_publisher(job: dict[str, str]) -> dict[str, float]:
    count, body = int(job["count"]), bytes(SIZE)
    client = await nats.connect(job["endpoint"])
    ready()
    told_to_go()
    start = time.monotonic()
    for _ in range(count):
        await client.publish(SUBJECT, body)
    await client.flush()
    await client.close()
    return {"start": start}


async def nats_server_side(job: dict[str, str]) -> dict[str, float]:
    async def echo(message: nats.aio.msg.Msg) -> None:
        await message.respond(message.data)

    client = await nats.connect(job["endpoint"])
    await client.subscribe(SERVICE, cb=echo)
    await client.flush()
    ready()
    await asyncio.to_thread(told_to_go)
    await client.close()
    return {}


async def nats_requester(job: dict[str, str]) -> dict[str, float]:
    client = await nats.connect(job["endpoint"])
    times = await round_trips(int(job["count"]), lambda body: client.request(SERVICE, body))
    await client.close()
    return times


async def round_trips(count: int, ask: Callable[[bytes], object]) -> dict[str, float]:
    """Median round trip in microseconds, one request at a time, after a tenth as warm-up."""
    body, taken = bytes(SIZE), []
    for _ in range(count + count // 10):
        start = time.perf_counter_ns()
        await ask(body)  # type: ignore[misc]
        taken.append(time.perf_counter_ns() - start)
    return {"p50": statistics.median(taken[count // 10 :]) / 1000}


WORKERS = {
    "our_subscriber": our_subscriber, "our_publisher": our_publisher,
    "our_server": our_server, "our_requester": our_requester,
    "nats_subscriber": nats_subscriber, "nats_publisher": nats_publisher,
    "nats_server": nats_server_side, "nats_requester": nats_requester,
}  # fmt: skip


# The measurements.


class Worker:
    """A worker process."""

    def __init__(self, role: str, job: dict[str, object]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, "--worker", role],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._tell(json.dumps(job))

    def wait_ready(self) -> None:
        assert self._line() == "ready"

    def go(self) -> None:
        self._tell("go")

    def result(self) -> dict[str, float]:
        told: dict[str, float] = json.loads(self._line())
        self._process.wait(30)
        return told

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def delivered_rate(side: str, job: dict[str, object], count: int) -> float:
    """Messages per second from the first publish to the last delivery."""
    job = {**job, "count": count}
    subscriber = Worker(f"{side}_subscriber", job)
    subscriber.wait_ready()
    publisher = Worker(f"{side}_publisher", job)
    publisher.wait_ready()
    publisher.go()
    start = publisher.result()["start"]
    end = subscriber.result()
    assert end["lost"] == 0
    return count / (end["end"] - start)


def round_trip(side: str, job: dict[str, object], count: int) -> float:
    """Median round trip of one request at a time, microseconds."""
    server = Worker(f"{side}_server", job)
    server.wait_ready()
    result = Worker(f"{side}_requester", {**job, "count": count}).result()
    server.go()
    server.result()
    return result["p50"]


@contextmanager
def our_broker(folder: Path) -> Iterator[dict[str, object]]:
    command = [sys.executable, "-P", "-m", "bus.cli"]
    subprocess.run(
        [*command, "init", str(folder), "--endpoint", "tcp://127.0.0.1:0"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    broker = subprocess.Popen(
        [*command, "run", str(folder), "--log", "json"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert broker.stderr is not None
        listening = json.loads(broker.stderr.readline())
        yield {
            "endpoint": listening["endpoint"], "key": listening["key"],
            "key_file": str(folder / "admin.key"),
        }  # fmt: skip
    finally:
        broker.terminate()
        broker.wait(10)


@contextmanager
def nats_broker() -> Iterator[dict[str, object]]:
    binary = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        raise SystemExit("nats-server is not installed: run .ci/install_system")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [binary, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield {"endpoint": f"nats://127.0.0.1:{port}"}
    finally:
        server.terminate()
        server.wait(10)


def main() -> int:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--worker", help="internal: run one worker process")
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return 0
    out = report.Report("bus against nats-py through nats-server", as_json=options.json)
    runs, messages, requests = (3, 100_000, 1000) if options.quick else (7, 300_000, 5000)
    rates: dict[str, list[float]] = {"our": [], "nats": []}
    trips: dict[str, list[float]] = {"our": [], "nats": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        our_broker(Path(folder) / "broker") as job,
        nats_broker() as peer,
    ):
        for _ in range(runs):
            for side, where in (("our", job), ("nats", peer)):
                rates[side].append(delivered_rate(side, where, messages))
                trips[side].append(round_trip(side, where, requests))
    for side, found in rates.items():
        out.note(
            f"# {side}: {[round(r) for r in found]} msg/s, {[round(t) for t in trips[side]]} µs"
        )
    out.add(report.rate("pubsub-1to1-128", "msg/s", rates["our"], rates["nats"], "nats-py", 4.0))
    # A round trip at most 1.2 times as long as the peer's.
    out.add(
        report.duration("reqrep-single-p50", "µs", trips["our"], trips["nats"], "nats-py", 1 / 1.2)
    )
    return out.exit_code()


if __name__ == "__main__":
    sys.exit(main())
