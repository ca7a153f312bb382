"""The mesh: streams through nodes in network namespaces, in turn with `ssh -L` between the same ones.

Ours is as shipped: links with data connections of their own, sealed from end to end. Needs root. Rates
are from the first byte sent until the last came; beside each stands what all tunnel processes (nodes, or
ssh and sshd) used of the CPU for it.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Protocol

from benchmarks import mesh_times
from benchmarks.fairness import shares
from benchmarks.report import Report, arguments, duration, rate
from benchmarks.tunnels import Carried, Forward, SshForward, carry, forwarding, ssh_forward
from tests.support.namespaces import spread_mesh

SIZE, RUNS = 512 << 20, 5
QUICK_SIZE, QUICK_RUNS = 128 << 20, 3
LINE = {"a": ["b"], "b": ["c"], "c": ["d"], "d": []}  # so there are 0, 1, 2 nodes between
RING = {"a": ["b"], "b": ["c"], "c": ["d"], "d": ["a"]}
SSH = "ssh -L aes128-gcm"


class Rows(Protocol):
    async def __call__(self, out: Report, *, quick: bool) -> None: ...


def links(nodes: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, other) for name, others in nodes.items() for other in others]


async def streams(out: Report, *, quick: bool) -> None:
    """One stream over 0, 1 and 2 relays, and `ssh -L` between the same two as the first."""
    size, runs = (QUICK_SIZE, QUICK_RUNS) if quick else (SIZE, RUNS)
    with (
        spread_mesh(LINE) as mesh,
        tempfile.TemporaryDirectory(prefix="mesh-ssh-") as folder,
        contextlib.ExitStack() as stack,
    ):
        await mesh.linked(*links(LINE))
        async with (
            forwarding(mesh, "a", "b") as direct,
            forwarding(mesh, "a", "c", "b") as over_one,
            forwarding(mesh, "a", "d", "bc") as over_two,
        ):
            ssh = stack.enter_context(ssh_forward(Path(folder), mesh, "a", "b", direct.sink))
            tunnels: dict[str, tuple[Forward | SshForward, Forward]] = {
                "direct": (direct, direct),
                "ssh": (ssh, direct),
                "relay1": (over_one, over_one),
                "relay2": (over_two, over_two),
            }
            if not quick:
                await asyncio.to_thread(_settle, tunnels, size)
            found: dict[str, list[Carried]] = {name: [] for name in tunnels}
            for _ in range(runs):
                for name, (tunnel, to) in tunnels.items():
                    one = await asyncio.to_thread(carry, tunnel.connect, to.sink, size, tunnel.pids)
                    found[name].append(one)
                    out.note(f"# {name}: {one.rate:.0f} MB/s, {one.cpu:.2f} CPU-s/GB")
    rates = {name: [one.rate for one in all_] for name, all_ in found.items()}
    cpu = {name: [one.cpu for one in all_] for name, all_ in found.items()}
    for name in found:
        out.note(f"# {name}: CPU-s/GB, median {statistics.median(cpu[name]):.2f}")
    out.add(rate("stream-direct", "MB/s", rates["direct"], rates["ssh"], SSH, 0.7))
    out.add(duration("stream-direct-cpu", "CPU-s/GB", cpu["direct"], cpu["ssh"], SSH, 1 / 2.5))
    out.add(rate("stream-relay1", "MB/s", rates["relay1"], rates["direct"], "direct", 0.6))
    out.add(rate("stream-relay2", "MB/s", rates["relay2"], rates["direct"], "direct", 0.4))


def _settle(tunnels: dict[str, tuple[Forward | SshForward, Forward]], size: int) -> None:
    """One turn that does not count."""
    for tunnel, to in tunnels.values():
        carry(tunnel.connect, to.sink, size, tunnel.pids)


async def fairness(out: Report, *, quick: bool) -> None:
    """200 streams between the same two nodes at once: what the slowest gets of what the fastest does."""
    seconds = 2.0 if quick else 5.0
    with spread_mesh({"a": ["b"], "b": []}) as mesh:
        await mesh.linked(("a", "b"))
        async with forwarding(mesh, "a", "b") as forward:
            ends = []
            for _ in range(200):
                near = await forward.open()
                ends.append((near, await asyncio.to_thread(forward.sink.accept)))
            found, total = [], 0.0
            for _ in range(1 if quick else 3):
                got = await asyncio.to_thread(shares, ends, seconds)
                found.append(min(got) / max(got))
                total = sum(got) / seconds / 1e6
                out.note(f"# 200 streams: slowest/fastest {found[-1]:.2f}, {total:.0f} MB/s in all")
            for pair in ends:
                for sock in pair:
                    sock.close()
    out.add(rate("streams-200-fair", "slowest/fastest", found, [1.0] * len(found), "equal", 0.5))


async def relay_times(out: Report, *, quick: bool) -> None:
    """Over a ring: how fast a stream opens over a relay, and how fast it goes on without that one."""
    with spread_mesh(RING) as mesh:
        await mesh.linked(*links(RING))
        opened, trips = await mesh_times.opening(mesh, 10 if quick else 50)
        trip = statistics.median(trips)
        out.note(f"# round trip from end to end: {trip:.2f} ms")
        limit = [trip + 5.0] * len(opened)
        out.add(duration("open-relay1", "ms", opened, limit, "round trip + 5 ms", 1.0))
        gaps = [await mesh_times.failover(mesh) for _ in range(2 if quick else 5)]
        out.note("# without a byte: " + ", ".join(f"{gap:.2f} s" for gap in gaps))
        out.add(duration("failover", "s", gaps, [4.0] * len(gaps), "limit", 1.0))


async def under_bulk(out: Report, *, quick: bool) -> None:
    """Echo while bulk takes the same route, over an emulated link of 50 Mbit/s and 40 ms."""
    seconds = 4.0 if quick else 15.0
    with mesh_times.slow_pair() as mesh:
        await mesh.linked(("a", "b"))
        idle, busy, bulk = await mesh_times.echo_under_bulk(mesh, seconds)
    out.note(f"# echo p99: idle {idle:.1f} ms; under bulk of {bulk * 8:.1f} Mbit/s {busy:.1f} ms")
    out.add(duration("echo-under-bulk-p99", "ms", [busy], [idle + 60], "idle + 60 ms", 1.0))


async def routes(out: Report, *, quick: bool) -> None:
    """The manager's plan for 1,000 nodes with four links each: a link is lost."""
    took = mesh_times.routes_1000(changes=20 if quick else 100)
    out.note(f"# worst {max(took):.1f} ms")
    out.add(duration("routes-1000", "ms", took, [100.0] * len(took), "limit", 1.0))


ROWS: dict[str, Rows] = {
    "streams": streams,
    "fairness": fairness,
    "relay": relay_times,
    "bulk": under_bulk,
    "routes": routes,
}


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=ROWS, action="append", help="these rows; several times")
    options = parser.parse_args()
    out = Report("the mesh, nodes in network namespaces", as_json=options.json)
    for name in options.only or ROWS:
        asyncio.run(ROWS[name](out, quick=options.quick))
    return out.exit_code()


if __name__ == "__main__":
    sys.exit(main())
