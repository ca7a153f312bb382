"""The bus against NATS' Python client through nats-server, in turns in one run.

Ours runs as shipped: CURVE, access checks on every message, the asyncio client at both ends. NATS runs
in clear text without permissions; so does mosquitto with paho-mqtt, for the record. Publishers, subscribers
and brokers are processes of their own. The rows are listed in docs/benchmarks.md; `--rows a,b` runs some.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# Run as a script, this file's folder comes first on the path and `bus` would be this file.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

import psutil  # noqa: E402

from benchmarks import brokers, report  # noqa: E402
from bus import Address, keystore, signals  # noqa: E402
from bus.caller import Caller  # noqa: E402
from tests.support.stack import free_port  # noqa: E402

FOLDER = Path(__file__).parent
MEMBERS, PROCESSES = 2000, 10  # of the crowd


class Worker:
    """A process of `traffic.py` or `crowd.py`."""

    def __init__(self, job: brokers.Job, *command: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.tell(job)

    def tell(self, job: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def wait_ready(self) -> None:
        assert self._line() == "ready"

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._line())
        return found

    def result(self) -> dict[str, Any]:
        found = self.answer()
        self.end()
        return found

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def traffic(role: str, job: brokers.Job, **more: object) -> Worker:
    return Worker({**job, **more}, str(FOLDER / "traffic.py"), role)


# The measurements: one run of one side.


def delivered(
    side: str, job: brokers.Job, *, size: int, count: int, readers: int = 1, processes: int = 1
) -> float:
    """Messages per second from the first publish to the last delivery, over all readers."""
    more = {"size": size, "count": count, "readers": readers // processes}
    subscribers = [traffic(f"{side}_subscriber", job, **more) for _ in range(processes)]
    for subscriber in subscribers:
        subscriber.wait_ready()
    publisher = traffic(f"{side}_publisher", job, **more)
    publisher.wait_ready()
    publisher.tell("go")
    start = publisher.result()["start"]
    ends = [subscriber.result() for subscriber in subscribers]
    return sum(end["seen"] for end in ends) / (max(end["end"] for end in ends) - start)


def asked(
    side: str, job: brokers.Job, *, count: int, flight: int, pace: float = 0
) -> dict[str, float]:
    server = traffic(f"{side}_server", job)
    server.wait_ready()
    result = traffic(
        f"{side}_requester", job, size=128, count=count, flight=flight, pace=pace
    ).result()
    server.tell("go")
    server.result()
    return result


def stored(side: str, job: brokers.Job, *, count: int) -> float:
    rate: float = traffic(f"{side}_storer", job, size=128, count=count, flight=64).result()["rate"]
    return rate


def relayed(program: Path, count: int) -> Callable[[str, brokers.Job], float]:
    """Ours, or 64 KiB messages through bare libzmq with CURVE, in C: what any broker on it is bounded by."""
    subprocess.run(["cc", "-O2", "-o", program, FOLDER / "relay.c", "-lzmq"], check=True)

    def measure(side: str, job: brokers.Job) -> float:
        if side == "our":
            return delivered(side, job, size=65_536, count=count)
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        told = subprocess.run(
            [program, str(count), "65536", "1", endpoint], check=True, capture_output=True
        )
        return float(told.stdout)

    return measure


class Turns:
    """Runs ours and the peer in turns and reports the row."""

    def __init__(self, out: report.Report, runs: int, jobs: dict[str, brokers.Job]) -> None:
        self._out, self._runs, self.jobs = out, runs, jobs

    def rates(
        self, name: str, unit: str, at_least: float, measure: Callable[[str, brokers.Job], float],
        peer: str = "nats", peer_name: str = "nats-py",
    ) -> None:  # fmt: skip
        ours, theirs = self._measure(name, measure, peer)
        self._out.add(report.rate(name, unit, ours, theirs, peer_name, at_least))

    def times(
        self, name: str, at_least: float, measure: Callable[[str, brokers.Job], float]
    ) -> None:
        ours, theirs = self._measure(name, measure, "nats")
        self._out.add(report.duration(name, "µs", ours, theirs, "nats-py", at_least))

    def _measure(
        self, name: str, measure: Callable[[str, brokers.Job], float], peer: str
    ) -> tuple[list[float], list[float]]:
        found: dict[str, list[float]] = {"our": [], peer: []}
        for _ in range(self._runs):
            for side, results in found.items():
                results.append(measure(side, self.jobs.get(side, {})))
        for side, results in found.items():
            self._out.note(f"# {name} {side}: {[round(r) for r in results]}")
        return found["our"], found[peer]


def make_topic(broker: brokers.OurBroker) -> None:
    address = Address(str(broker.job["endpoint"]), str(broker.job["key"]))
    with Caller(address, keystore.load(broker.folder / "admin.key")) as caller:
        config = signals.TopicConfig("bench", ["topic.bench.stored"])
        caller.request(signals.TOPIC_PUT, signals.pack(config))


def crowd(out: report.Report, broker: brokers.OurBroker, members: int) -> None:
    """Idle sessions: memory and processor time of the broker; then it is killed and all come back."""
    process = psutil.Process(broker.process.pid)
    before, each = process.memory_info().rss, members // PROCESSES
    workers = [
        Worker(
            {**broker.job, "key_file": str(broker.folder / f"crowd{n}.key"), "members": each},
            str(FOLDER / "crowd.py"),
        )
        for n in range(PROCESSES)
    ]
    for worker in workers:
        worker.tell({"do": "up"})
    answers = [worker.answer() for worker in workers]
    epoch = answers[0]["epoch"]
    kib = (process.memory_info().rss - before) / members / 1024
    out.add(report.duration("idle-2000-memory", "KiB", [kib], [60.0], "limit", 1.0))
    spent, start = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(30)
    percent = (sum(process.cpu_times()[:2]) - spent) / (time.monotonic() - start) * 100
    out.add(report.duration("idle-2000-cpu", "%", [percent], [5.0], "limit", 1.0))
    times = []
    for _ in range(5):
        broker.kill()
        start = time.monotonic()
        broker.start()
        for worker in workers:
            worker.tell({"do": "back", "epoch": epoch})
        answers = [worker.answer() for worker in workers]
        epoch = answers[0]["epoch"]
        times.append(max(answer["at"] for answer in answers) - start)
    out.add(report.duration("comeback-2000", "s", times, [10.0] * 5, "limit", 1.0))
    for worker in workers:
        worker.end()


def main() -> int:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--rows", help="only these, joined by commas")
    options = parser.parse_args()
    out = report.Report("bus against nats-py through nats-server", as_json=options.json)
    quick, wanted = options.quick, (options.rows or "").split(",")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(brokers.ours(folder / "broker", crowd_keys=PROCESSES))
        (folder / "nats").mkdir()
        jobs = {"our": broker.job, "nats": stack.enter_context(brokers.nats(folder / "nats"))}
        jobs["mqtt"] = stack.enter_context(brokers.mosquitto(folder))
        turns = Turns(out, 3 if quick else 7, jobs)
        scale = 10 if quick else 1
        rows = rows_of(turns, scale, broker, out)
        for name, run in rows.items():
            if wanted == [""] or name in wanted:
                run()
    return out.exit_code()


def rows_of(
    turns: Turns, scale: int, broker: brokers.OurBroker, out: report.Report
) -> dict[str, Callable[[], None]]:
    """Every row by name, in the order in which they run."""

    def topic(size: int, count: int, readers: int = 1, processes: int = 1) -> Any:
        return lambda side, job: delivered(
            side, job, size=size, count=count // scale, readers=readers, processes=processes
        )

    def stores() -> None:
        make_topic(broker)
        turns.rates("durable-64", "msg/s", 1.0, lambda s, j: stored(s, j, count=20_000 // scale))

    return {
        "pubsub-1to1-128": lambda: turns.rates(
            "pubsub-1to1-128", "msg/s", 6.0, topic(128, 500_000)
        ),
        "pubsub-1to1-64k": lambda: turns.rates(
            "pubsub-1to1-64k", "msg/s", 3.0, topic(65_536, 6_000)
        ),
        "bare-libzmq-64k": lambda: turns.rates(
            "bare-libzmq-64k", "msg/s", 0.0,
            relayed(broker.folder / "relay", 6000 // scale), "bare", "libzmq in C",
        ),
        "pubsub-1to20-128": lambda: turns.rates(
            "pubsub-1to20-128", "msg/s", 4.0, topic(128, 30_000, 20, 2)
        ),
        "reqrep-single-p50": lambda: turns.times(
            "reqrep-single-p50", 1.0, lambda s, j: asked(s, j, count=5000 // scale, flight=1)["p50"]
        ),
        "reqrep-64-rate": lambda: turns.rates(
            "reqrep-64-rate", "req/s", 2.0,
            lambda s, j: asked(s, j, count=20_000 // scale, flight=64)["rate"],
        ),
        "durable-64": stores,
        "mqtt-1to1-128": lambda: turns.rates(
            "mqtt-1to1-128", "msg/s", 0.0, topic(128, 100_000), "mqtt", "paho-mqtt"
        ),
        "crowd": lambda: crowd(out, broker, MEMBERS),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
