"""[tick-50]: CPU of one statistics tick over the processes of 50 apps, each below a keeper of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

from viscript.usage import Root, scan

APPS = 50
TICKS = 40


def tick(apps: int = APPS, ticks: int = TICKS) -> list[float]:
    """CPU milliseconds of each of `ticks` ticks, with `apps` stand-ins for keeper and program."""
    code = "import subprocess; subprocess.run(['sleep', '600'], start_new_session=True)"
    with ExitStack() as stack:
        roots: dict[int, Root] = {}
        for number in range(apps):
            keeper = subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
            stack.callback(keeper.wait)
            stack.callback(keeper.kill)
            roots[number] = Root(keeper.pid, -1)
        while not all(sample.processes for sample in scan(roots).values()):
            time.sleep(0.1)
        try:
            return [_one(roots) for _ in range(ticks)]
        finally:
            _end(roots)


def of(roots: dict[int, Root], ticks: int = TICKS) -> list[float]:
    """The same over launches that run: the keeper and program of each."""
    return [_one(roots) for _ in range(ticks)]


def _one(roots: dict[int, Root]) -> float:
    began = time.process_time()
    scan(roots)
    return (time.process_time() - began) * 1000


def _end(roots: dict[int, Root]) -> None:
    for root in roots.values():
        subprocess.run(["pkill", "-P", str(root.keeper)], check=False)


def main() -> None:
    found = sorted(tick())
    print(
        f"[tick-50] {statistics.median(found):.2f} ms CPU a tick, p99 {found[-1]:.2f} ms, {APPS} apps"
    )


if __name__ == "__main__":
    main()
