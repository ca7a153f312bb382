"""The launcher against circus and supervisord: the same apps, one after another, in turns.

Rows: start-50 (nothing runs until 50 apps have said that they are there), la-50 (`viscript la` against
`supervisorctl status`, whole processes), tick-50 (CPU of one look at what 50 apps use), rss-daemon and
pss-keeper (memory with 50 apps), cycles-… (growth of the daemon over 1,000 starts and stops), event-p99 (an
app is killed until `viscript events -f` has said so), la-1000 and ping-1000 (20 simulated hosts).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Run as a script, this file's folder comes first on the path; see benchmarks/bus.py.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

import psutil  # noqa: E402

from benchmarks import launchers, report, simulated, tick  # noqa: E402
from viscript.client import Client  # noqa: E402
from viscript.commands import job, order, sd, start  # noqa: E402
from viscript.home import Home  # noqa: E402
from viscript.protocol import Job  # noqa: E402

APPS = 50
LIMITS = {  # of the rows without a peer
    "tick-50": 5.0,  # ms CPU
    "rss-daemon": 60.0,  # MiB
    "pss-keeper": 6.0,  # MiB
    "cycles-memory": 2.0,  # MiB of growth: pages come and go
    "cycles-files": 4.0,  # descriptors
    "cycles-processes": 0.5,
    "event-p99": 100.0,  # ms
    "la-1000": 1000.0,  # ms
    "ping-1000": 2000.0,  # ms
}
GONE = frozenset({"exited", "failed", "backoff"})


def limited(out: report.Report, name: str, unit: str, found: list[float]) -> None:
    """A row against a limit; a growth below zero is none."""
    least = [max(value, 1e-3) for value in found]
    out.add(report.duration(name, unit, least, [LIMITS[name]] * len(least), "limit", 1.0))


def start_50(
    out: report.Report, viscript: launchers.Viscript, peers: list[launchers.Launcher], runs: int
) -> None:
    found: dict[str, list[float]] = {each.name: [] for each in (viscript, *peers)}
    detached: list[float] = []
    for _ in range(runs):
        for each in (viscript, *peers):
            try:
                found[each.name].append(each.cold())
            finally:
                each.end()
        try:
            detached.append(viscript.detached())
        finally:
            viscript.end()
    ours = found.pop("viscript")
    out.note(f"# start-50: `up --detach` returns after {statistics.median(detached):,.0f} ms")
    for name, times in found.items():
        out.note(f"# start-50: {name} {statistics.median(times):,.0f} ms")
    faster = min(found, key=lambda name: statistics.median(found[name]))
    out.add(report.duration("start-50", "ms", ours, found[faster], faster, 1.0))


def la_50(
    out: report.Report, ours: launchers.Launcher, peers: list[launchers.Launcher], runs: int
) -> None:
    found: dict[str, list[float]] = {each.name: [] for each in (ours, *peers)}
    for turn in range(runs + 1):  # the first of each warms the disk cache
        for each in (ours, *peers):
            began = time.perf_counter()
            subprocess.run(each.listing, check=False, stdout=subprocess.DEVNULL)
            if turn:
                found[each.name].append((time.perf_counter() - began) * 1000)
    for each in peers[1:]:
        out.note(f"# la-50: {each.name} {statistics.median(found[each.name]):,.0f} ms")
    peer = peers[0].name
    out.add(report.duration("la-50", "ms", found[ours.name], found[peer], peer, 1 / 1.2))


def memory(out: report.Report, ours: launchers.Viscript, peers: list[launchers.Launcher]) -> None:
    for each in peers:
        resident = psutil.Process(each.daemon()).memory_info().rss / 2**20
        out.note(f"# rss-daemon: {each.name} {resident:.1f} MiB")
    daemon = psutil.Process(ours.daemon())
    limited(out, "rss-daemon", "MiB", [daemon.memory_info().rss / 2**20])
    broker = ours.ask("status")["broker"]["pid"]
    resident = psutil.Process(broker).memory_info().rss / 2**20
    out.note(f"# rss-daemon: the broker has {resident:.1f} MiB besides")
    limited(out, "pss-keeper", "MiB", [proportional(pid) for pid in ours.keepers()])


def proportional(pid: int) -> float:
    """MiB of a process, where a page that several share counts in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("Pss:")) / 1024


def settled(client: Client, reply: order.Reply) -> Job:
    assert reply.job is not None
    found = reply.job
    while found.ended is None:
        found = job.wait(client, found, 60.0)
    if found.state != "done":
        raise SystemExit(f"a start or stop ended badly: {found}")
    return found


def cycle(client: Client) -> None:
    """Start an app and shut it down, over one session: it is the daemon that is looked at."""
    request = start.Request(select=["cycle"], request=os.urandom(8).hex())
    begun = settled(client, client.ask(start.SUBJECT, request, order.Reply))
    number = str(begun.steps[0].id)
    request_stop = sd.Request(select=[number], request=os.urandom(8).hex())
    settled(client, client.ask(sd.SUBJECT, request_stop, order.Reply))


def cycles(out: report.Report, ours: launchers.Viscript, count: int) -> None:
    """What has grown from the middle third of the cycles to the last."""
    daemon = psutil.Process(ours.daemon())
    samples: list[tuple[float, float, float]] = []
    began = time.perf_counter()
    with Client(Home(ours.home)) as client:
        for number in range(count):
            cycle(client)
            if number % max(1, count // 60) == 0:
                memory = daemon.memory_info().rss / 2**20
                # The nursery and what it keeps: all below the daemon or with its home.
                processes = len(daemon.children(recursive=True))
                samples.append((memory, float(daemon.num_fds()), float(processes)))
    passed = (time.perf_counter() - began) / count * 1000
    third = len(samples) // 3
    out.note(
        f"# cycles-{count}: {passed:.1f} ms each, {samples[0][0]:.1f} MiB at first, {samples[-1][0]:.1f}"
    )
    for index, (name, unit) in enumerate(
        (("cycles-memory", "MiB"), ("cycles-files", "fds"), ("cycles-processes", "processes"))
    ):
        middle = statistics.median(x[index] for x in samples[third : 2 * third])
        last = statistics.median(x[index] for x in samples[2 * third :])
        limited(out, name, unit, [last - middle])


@contextlib.contextmanager
def following(ours: launchers.Viscript) -> Iterator[Callable[[], dict[str, object]]]:
    """`viscript events -f`; gives a function that waits for the next line."""
    command = [*ours.command, "events", "-f", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout

        def following_line() -> dict[str, object]:
            found: dict[str, object] = json.loads(lines.readline())
            return found

        try:
            while following_line()["kind"] != "snapshot":
                pass
            yield following_line
        finally:
            process.send_signal(signal.SIGINT)


def events(out: report.Report, ours: launchers.Viscript, rounds: int) -> None:
    times = []
    for turn in range(rounds):
        if turn:
            launchers.quietly([*ours.command, "start", "--yes", "app-*"])
        launches = [x for x in ours.ask("la") if x["state"] == "running"]
        with following(ours) as following_line:
            for launch in launches:
                began = time.perf_counter()
                os.kill(launch["pid"], signal.SIGKILL)
                while True:
                    line = following_line()
                    if line.get("id") == launch["id"] and line.get("to") in GONE:
                        break
                times.append((time.perf_counter() - began) * 1000)
    times.sort()
    out.note(f"# event-p99: median {statistics.median(times):.1f} ms, {len(times)} deaths")
    limited(out, "event-p99", "ms", [times[int(0.99 * (len(times) - 1))]])


def cluster(out: report.Report, folder: Path, rounds: int) -> None:
    folder.mkdir()
    with simulated.simulated(folder, 20, 50) as made:
        for name, seconds in simulated.measure(made, 1000, rounds).items():
            limited(out, name, "ms", [seconds * 1000])


def main() -> int:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--without-cluster", action="store_true", help="not the 20 simulated hosts")
    options = parser.parse_args()
    out = report.Report("launcher", as_json=options.json)
    quick = options.quick
    with tempfile.TemporaryDirectory(prefix="launcher-") as name:
        folder = Path(name)
        ours = launchers.Viscript(folder / "viscript", APPS)
        peers: list[launchers.Launcher] = [
            launchers.Supervisord(folder / "supervisord", APPS),
            launchers.Circus(folder / "circus", APPS),
        ]
        start_50(out, ours, peers, 2 if quick else 5)
        with contextlib.ExitStack() as stack:
            for each in (ours, *peers):
                stack.enter_context(each.running())
            la_50(out, ours, peers, 5 if quick else 15)
            memory(out, ours, peers)
        # With nothing of ours running: a look costs by all processes of the machine.
        limited(out, "tick-50", "ms CPU", tick.tick(ticks=10 if quick else 40))
        with ours.running():
            cycles(out, ours, 120 if quick else 1000)
            events(out, ours, 1 if quick else 4)
        if not options.without_cluster:
            cluster(out, folder / "cluster", 2 if quick else 5)
    return out.exit_code()


if __name__ == "__main__":
    sys.exit(main())
