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
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

# Run as a script, this file's folder comes first on the path and `bus` would be benchmarks/bus.py.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import report  # noqa: E402
from benchmarks.watched_broker import Sample, Watched, watched  # noqa: E402

LOAD = Path(__file__).with_name("mixed_load.py")
MAX_MINUTES = 600.0
SLACK = 0.05  # of the memory in the middle third
FLOOR = 2 << 20  # bytes that memory may grow by in any case: pages come and go
LEFT_OVER = 4  # descriptors more than before the load


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
        [sys.executable, "-P", str(LOAD)],
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
    options = parser.parse_args()
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
