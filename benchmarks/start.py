"""How fast the command line starts, and how much memory the shipped configuration takes.

Rows: cli-version and cli-la (whole process, against `python -c 'import typer'` of the same interpreter) and
resident-all (resident memory of all processes of the shipped configuration together, keepers included,
against the limit of 400 MiB).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# Run as a script, this file's folder comes first on the path; see benchmarks/bus.py.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

import psutil  # noqa: E402

from benchmarks import report  # noqa: E402
from tests.support.stack import free_port  # noqa: E402

VISCRIPT = Path(sys.executable).with_name("viscript")
CONFIG = Path(__file__).parents[1] / "config" / "config.yaml"
MEMORY_LIMIT = 400.0  # MiB


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def alternate(runs: int, ours: list[str], peer: list[str]) -> tuple[list[float], list[float]]:
    """Times of both in milliseconds, taken in turn, after one run of each to warm the disk cache."""
    seconds(ours), seconds(peer)
    pairs = [(seconds(ours) * 1000, seconds(peer) * 1000) for _ in range(runs)]
    return [a for a, _ in pairs], [b for _, b in pairs]


@contextlib.contextmanager
def instance(folder: Path) -> Iterator[list[str]]:
    """The shipped configuration, up in a home of its own; yields the start of a command line."""
    config = folder / "config.yaml"
    config.write_text(CONFIG.read_text().replace("127.0.0.1:1080", f"127.0.0.1:{free_port()}"))
    viscript = [str(VISCRIPT), "--home", str(folder / "home")]
    subprocess.run(
        [*viscript, "up", "--detach", "--config", str(config)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield viscript
    finally:
        subprocess.run([*viscript, "down"], check=True, stdout=subprocess.DEVNULL)


def resident(home: Path) -> float:
    """MiB resident of every process whose environment or arguments name this home."""
    total = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            of_home = str(home) in " ".join(process.cmdline())
            if of_home or process.environ().get("VISCRIPT_HOME") == str(home):
                total += process.memory_info().rss
    return total / 2**20


def main() -> int:
    options = report.arguments(__doc__ or "").parse_args()
    out = report.Report("start-up and memory", as_json=options.json)
    runs = 5 if options.quick else 15
    typer = [sys.executable, "-c", "import typer"]
    ours, peer = alternate(runs, [str(VISCRIPT), "--version"], typer)
    out.add(report.duration("cli-version", "ms", ours, peer, "import typer", 1 / 1.5))
    with tempfile.TemporaryDirectory() as folder, instance(Path(folder)) as viscript:
        ours, peer = alternate(runs, [*viscript, "la"], typer)
        out.add(report.duration("cli-la", "ms", ours, peer, "import typer", 1 / 2.5))
        memory = [resident(Path(folder) / "home")]
        out.add(report.duration("resident-all", "MiB", memory, [MEMORY_LIMIT], "limit", 1.0))
    return out.exit_code()


if __name__ == "__main__":
    sys.exit(main())
