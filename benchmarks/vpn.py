"""A VPN of two nodes, in turn with Debian's wireguard-go, yggdrasil, openvpn, tinc and nebula.

All between the same two namespaces; the rates are iperf3's, and beside each stands the CPU time that all
processes of the VPN took for a GB. Needs root, iproute2, iperf3 and the packages of the others.
"""

import asyncio
import contextlib
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from benchmarks.mesh_times import slow_pair
from benchmarks.report import Report, arguments, duration, rate
from benchmarks.tunnels import cpu_seconds
from benchmarks.vpns import OURS, PEERS, WIREGUARD, Run, Vpn, answers, iperf, ours, peers
from tests.support.namespaces import SpreadMesh, spread_mesh
from tests.support.tun import socket_inside

IDLE_LIMIT = 0.5  # % of a core
LOSS_LIMIT = 0.1  # %
NO_LOSS = 0.001  # %, in place of 0, of which there is no ratio
BULK = 12.0  # s
PAUSE = 0.02  # s between two echoes


class Bench:
    """What the rows share."""

    def __init__(self, out: Report, *, quick: bool) -> None:
        self.out = out
        self.runs, self.seconds = (1, 3) if quick else (3, 5)
        self.costs: dict[str, list[float]] = {}

    async def measure(
        self, mesh: SpreadMesh, vpns: dict[str, Vpn], row: str, *options: str
    ) -> dict[str, list[Run]]:
        """In turn."""
        found: dict[str, list[Run]] = {name: [] for name in vpns}
        for _ in range(self.runs):
            for name, vpn in vpns.items():
                one = await asyncio.to_thread(iperf, mesh, vpn, *options, seconds=self.seconds)
                found[name].append(one)
                loss = f", {one.loss:.3f} % lost" if "-u" in options else ""
                self.out.note(
                    f"# {row}, {name}: {one.rate:.0f} Mbit/s, {one.cpu:.1f} CPU-s/GB{loss}"
                )
        return found


@contextlib.asynccontextmanager
async def all_vpns(names: list[str]) -> AsyncIterator[tuple[SpreadMesh, dict[str, Vpn]]]:
    with spread_mesh({"a": [], "b": ["a"]}) as mesh:
        await mesh.linked(("a", "b"))
        with peers(mesh, names) as others:
            async with ours(mesh) as own:
                vpns = {OURS: own, **others}
                for vpn in vpns.values():
                    await asyncio.to_thread(answers, mesh, vpn)
                yield mesh, vpns


async def fast(bench: Bench, wanted: Callable[[str], bool], names: list[str]) -> None:
    """The rows on a link that holds nobody up."""
    async with all_vpns(names) as (mesh, vpns):
        for row, flows in (("vpn-tcp-1", 1), ("vpn-tcp-8", 8)):
            if wanted(row) or (flows == 1 and wanted("vpn-cpu")):
                found = await bench.measure(mesh, vpns, row, "-P", str(flows))
                rates = {name: [run.rate for run in all_] for name, all_ in found.items()}
                costs = {name: [run.cpu for run in all_] for name, all_ in found.items()}
                best = max((name for name in rates if name != OURS), key=_median_of(rates))
                bench.out.add(rate(row, "Mbit/s", rates[OURS], rates[best], best, 1.0))
                if flows == 1:
                    least = min((name for name in costs if name != OURS), key=_median_of(costs))
                    bench.out.add(
                        duration("vpn-cpu", "CPU-s/GB", costs[OURS], costs[least], least, 1.0)
                    )
        if wanted("vpn-udp-loss"):
            load = ("-u", "-b", "100M", "-l", "1200")
            found = await bench.measure(mesh, vpns, "vpn-udp-loss", *load)
            lost = [max(run.loss, NO_LOSS) for run in found[OURS]]
            row_ = duration("vpn-udp-loss", "%", lost, [LOSS_LIMIT] * len(lost), "limit", 1.0)
            bench.out.add(row_)


def _median_of(values: dict[str, list[float]]) -> Callable[[str], float]:
    return lambda name: statistics.median(values[name])


async def relayed(bench: Bench) -> None:
    """Through one relay, against the same two nodes with a link of their own."""
    direct: list[float] = []
    through: list[float] = []
    for _ in range(bench.runs):
        for nodes, between, rates in (
            ({"a": [], "b": ["a"]}, (), direct),
            ({"a": ["c"], "c": ["b"], "b": []}, ("c",), through),
        ):
            with spread_mesh(nodes) as mesh:
                await mesh.linked(*((name, other) for name in nodes for other in nodes[name]))
                async with ours(mesh, between) as own:
                    await asyncio.to_thread(answers, mesh, own)
                    one = await asyncio.to_thread(iperf, mesh, own, seconds=bench.seconds)
                    rates.append(one.rate)
                    bench.out.note(
                        f"# vpn-relay1, {len(between)} relays: {one.rate:.0f} Mbit/s,"
                        f" {one.cpu:.1f} CPU-s/GB"
                    )
    bench.out.add(rate("vpn-relay1", "Mbit/s", through, direct, "direct", 0.6))


def echoes(mesh: SpreadMesh, vpn: Vpn, seconds: float) -> list[float]:
    """Milliseconds that 64 bytes of UDP take there and back, meanwhile."""
    far = socket_inside(mesh.spaces.of("b"))
    far.bind((vpn.far, 7))
    near = socket_inside(mesh.spaces.of("a"))
    near.bind((vpn.near, 0))
    near.settimeout(2)
    over = threading.Event()
    far.settimeout(0.2)

    def answer() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                data, where = far.recvfrom(100)
                far.sendto(data, where)

    answering = threading.Thread(target=answer)
    answering.start()
    found = []
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        number += 1
        said = number.to_bytes(8, "big") + bytes(56)
        begun = time.monotonic()
        near.sendto(said, (vpn.far, 7))
        with contextlib.suppress(TimeoutError):
            while near.recv(100) != said:
                pass
        found.append((time.monotonic() - begun) * 1e3)  # one that is lost took 2 s
        time.sleep(PAUSE)
    over.set()
    answering.join()
    near.close()
    far.close()
    return found


async def slow(bench: Bench) -> None:
    """Echoes beside one TCP connection, on an emulated link of 50 Mbit/s and 40 ms."""
    found: dict[str, list[tuple[float, float]]] = {OURS: [], WIREGUARD: []}
    with slow_pair() as mesh:
        await mesh.linked(("a", "b"))
        with peers(mesh, [WIREGUARD]) as others:
            async with ours(mesh) as own:
                vpns = {OURS: own, **others}
                for vpn in vpns.values():
                    await asyncio.to_thread(answers, mesh, vpn)
                for _ in range(bench.runs):
                    for name, vpn in vpns.items():
                        found[name].append(await _loaded(bench, mesh, vpn))
    for part, row in ((0, "vpn-latency-p50"), (1, "vpn-latency-p99")):
        mine = [pair[part] for pair in found[OURS]]
        theirs = [pair[part] for pair in found[WIREGUARD]]
        bench.out.add(duration(row, "ms", mine, theirs, WIREGUARD, 1 / 1.3))


async def _loaded(bench: Bench, mesh: SpreadMesh, vpn: Vpn) -> tuple[float, float]:
    """p50 and p99 of echoes under load."""
    idle = await asyncio.to_thread(echoes, mesh, vpn, 1.0)
    bulk = asyncio.create_task(asyncio.to_thread(iperf, mesh, vpn, seconds=int(BULK)))
    await asyncio.sleep(3)
    busy = await asyncio.to_thread(echoes, mesh, vpn, BULK - 5)
    one = await bulk
    cuts = statistics.quantiles(busy, n=100)
    bench.out.note(
        f"# slow link, {vpn.name}: idle {statistics.median(idle):.0f} ms, under load"
        f" {cuts[49]:.0f}/{cuts[98]:.0f} ms, bulk {one.rate:.1f} Mbit/s"
    )
    return cuts[49], cuts[98]


async def idle(bench: Bench) -> None:
    seconds = 10 if bench.runs == 1 else 30
    async with all_vpns([]) as (mesh, vpns):
        await asyncio.sleep(3)
        pid = mesh.processes["a"].pid
        before = cpu_seconds([pid])
        await asyncio.sleep(seconds)
        used = max((cpu_seconds([pid]) - before) / seconds * 100, NO_LOSS)
        bench.out.note(f"# the node of {vpns[OURS].name}, idle: {used:.2f} % of a core")
    bench.out.add(duration("vpn-idle", "% of a core", [used], [IDLE_LIMIT], "limit", 1.0))


async def run(bench: Bench, rows: list[str], names: list[str]) -> None:
    def wanted(row: str) -> bool:
        return not rows or row in rows

    if any(map(wanted, ("vpn-tcp-1", "vpn-tcp-8", "vpn-cpu", "vpn-udp-loss"))):
        await fast(bench, wanted, names)
    parts: dict[str, Callable[[Bench], Awaitable[None]]] = {
        "vpn-relay1": relayed,
        "vpn-latency-p50": slow,
        "vpn-idle": idle,
    }
    for row, part in parts.items():
        if wanted(row) or (part is slow and wanted("vpn-latency-p99")):
            await part(bench)


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("rows", nargs="*", help="only these, such as vpn-tcp-1")
    parser.add_argument(
        "--against", default=",".join(PEERS), help="names of the others (default: %(default)s)"
    )
    options = parser.parse_args()
    out = Report("a VPN of two nodes", as_json=options.json)
    names = [name for name in options.against.split(",") if name]
    asyncio.run(run(Bench(out, quick=options.quick), options.rows, names))
    return out.exit_code()


if __name__ == "__main__":
    sys.exit(main())
