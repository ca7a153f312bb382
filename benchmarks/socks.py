"""SOCKS through two nodes, in turn with shadowsocks-libev and `ssh -D` between the same two namespaces.

Against the better of the two peers. Beside each rate stands the CPU time that all processes of the proxy took
for it. Needs root, cc, shadowsocks-libev and OpenSSH.
"""

import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.proxies import OURS, PORTS, SHADOWSOCKS, SSH, Bench, Carried, Load, proxies
from benchmarks.report import Report, arguments, duration, rate

PEERS = (SHADOWSOCKS, SSH)
RUNS, QUICK_RUNS = 5, 3
MB = 1_000_000


def measure(
    bench: Bench, out: Report, load: Load, runs: int, show: Callable[[Carried], str]
) -> dict[str, list[Carried]]:
    """In turn, after one turn that does not count."""
    found: dict[str, list[Carried]] = {name: [] for name in PORTS}
    for number in range(runs + 1):
        for name, all_ in found.items():
            one = _once_more(bench, name, load, out)
            if number:
                all_.append(one)
                out.note(f"# {name}: {show(one)}")
    return found


def _once_more(bench: Bench, name: str, load: Load, out: Report) -> Carried:
    """A load that a proxy does not bring to its end is told, and repeated once."""
    try:
        return bench.run(name, load)
    except RuntimeError as error:
        out.note(f"# {error}")
        return bench.run(name, load)


def downloads(bench: Bench, out: Report, name: str, load: Load, runs: int) -> None:
    """MB/s of all connections together."""
    size = load.octets * load.count

    def speed(one: Carried) -> float:
        return size / one.seconds / MB

    def cost(one: Carried) -> float:
        return one.cpu / size * 1000 * MB

    found = measure(
        bench, out, load, runs, lambda one: f"{speed(one):.0f} MB/s, {cost(one):.2f} CPU-s/GB"
    )
    for who, all_ in found.items():
        out.note(f"# {name}, {who}: median {statistics.median(map(cost, all_)):.2f} CPU-s/GB")
    rates = {who: [speed(one) for one in all_] for who, all_ in found.items()}
    best = max(PEERS, key=lambda who: statistics.median(rates[who]))
    out.add(rate(name, "MB/s", rates[OURS], rates[best], best, 0.7))


def connections(bench: Bench, out: Report, runs: int, count: int) -> None:
    load = Load(5, count, at_once=50)

    def speed(one: Carried) -> float:
        return count / one.seconds

    def cost(one: Carried) -> float:
        return one.cpu / count * 1e6

    found = measure(
        bench, out, load, runs, lambda one: f"{speed(one):.0f}/s, {cost(one):.0f} CPU-us each"
    )
    rates = {who: [speed(one) for one in all_] for who, all_ in found.items()}
    best = max(PEERS, key=lambda who: statistics.median(rates[who]))
    out.add(rate("socks-conn-rate", "/s", rates[OURS], rates[best], best, 0.4))


def first_byte(bench: Bench, out: Report, runs: int, count: int) -> None:
    load = Load(5, count, pause=10)
    found = measure(bench, out, load, runs, lambda one: f"{one.first_byte:.0f} us")
    times = {who: [one.first_byte for one in all_] for who, all_ in found.items()}
    best = min(PEERS, key=lambda who: statistics.median(times[who]))
    out.add(duration("socks-ttfb", "us", times[OURS], times[best], best, 0.5))


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("rows", nargs="*", help="only these, such as socks-32")
    options = parser.parse_args()
    runs = QUICK_RUNS if options.quick else RUNS
    part = 4 if options.quick else 1
    out = Report("SOCKS through two nodes", as_json=options.json)
    rows: dict[str, Callable[[Bench], None]] = {
        "socks-1x512": lambda bench: downloads(
            bench, out, "socks-1x512", Load(512 * MB // part, 1), runs
        ),
        "socks-32": lambda bench: downloads(
            bench, out, "socks-32", Load(16 * MB // part, 32, at_once=32), runs
        ),
        "socks-conn-rate": lambda bench: connections(bench, out, runs, 4000 // part),
        "socks-ttfb": lambda bench: first_byte(bench, out, runs, 100 // part),
    }
    with proxies() as bench:
        _settle(bench)
        for name, row in rows.items():
            if not options.rows or name in options.rows:
                row(bench)
    return out.exit_code()


def _settle(bench: Bench) -> None:
    """Until the nodes have found each other."""
    deadline = time.monotonic() + 30
    while True:
        try:
            bench.run(OURS, Load(5, 1))
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
