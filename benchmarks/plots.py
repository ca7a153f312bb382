"""Two plots for the documentation, measured in turns as benchmarks/bus.py does: throughput against the size
of messages, and the latency of requests against the load. `make plots` writes docs/images/*.svg.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

# Run as a script, this file's folder comes first on the path; see benchmarks/bus.py.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

import matplotlib as mpl  # noqa: E402

mpl.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

from benchmarks import brokers, report  # noqa: E402
from benchmarks.bus import asked, delivered  # noqa: E402

SIZES = (16, 128, 512, 2048, 8192, 32_768, 131_072, 524_288)  # bytes
LOADS = (500, 1000, 2000, 4000, 8000, 12_000, 16_000, 24_000)  # requests per second
RUNS = 3
SIDES = {"our": ("SB/1, CURVE and access checks", "C0"), "nats": ("nats-py, clear text", "C1")}
IMAGES = Path(__file__).parents[1] / "docs" / "images"


def throughput(jobs: dict[str, brokers.Job]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.2))
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for size in SIZES:
        count = min(200_000, max(400, 200_000_000 // size // 2))
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(RUNS):
            for side, results in rates.items():
                results.append(delivered(side, jobs[side], size=size, count=count))
        for side, results in rates.items():
            found[side].append(statistics.median(results) * size / 1e6)
        print(
            f"# {size} bytes: { {s: round(f[-1], 1) for s, f in found.items()} } MB/s", flush=True
        )
    for side, (label, colour) in SIDES.items():
        axes.loglog(SIZES, found[side], "o-", color=colour, label=label)
    axes.set(
        xlabel="message size, bytes",
        ylabel="delivered, MB/s",
        title="One publisher, one subscriber",
    )
    finish(figure, "bus-throughput.svg")


def latency(jobs: dict[str, brokers.Job]) -> None:
    """A load that is no longer kept up with shows as latency that grows without bound: it ends the line."""
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for side, (label, colour) in SIDES.items():
        p50, p99 = [], []
        for load in LOADS:
            result = asked(side, jobs[side], count=max(1000, load), flight=1, pace=load)
            p50.append(result["p50"] / 1000)
            p99.append(result["p99"] / 1000)
            print(f"# {side} at {load}/s: p50 {p50[-1]:.2f} ms, p99 {p99[-1]:.2f} ms", flush=True)
            if p50[-1] > 100:
                break
        loads = LOADS[: len(p50)]
        axes.loglog(loads, p50, "o-", color=colour, label=f"{label}, median")
        axes.loglog(loads, p99, "s:", color=colour, label=f"{label}, 99 %")
    axes.set(
        xlabel="requests per second, asked by the clock",
        ylabel="round trip, ms",
        title="Request and reply",
    )
    finish(figure, "bus-latency.svg")


def finish(figure: plt.Figure, name: str) -> None:
    axes = figure.axes[0]
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    figure.text(0.01, 0.005, report.machine(), fontsize=5.5, color="grey")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / name, metadata={"Date": None})


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(brokers.ours(folder / "broker"))
        (folder / "nats").mkdir()
        jobs = {"our": broker.job, "nats": stack.enter_context(brokers.nats(folder / "nats"))}
        throughput(jobs)
        latency(jobs)


if __name__ == "__main__":
    main()
