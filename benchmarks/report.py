"""What every benchmark prints: one row a comparison, for people or as one JSON line.

A row compares our median with a peer's median of the same run. The ratio is always "bigger is
better": ours/peer for rates, peer/ours for times. Numbers of two machines or two days say little;
the ratio of one alternating run says something.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One comparison; the field names are those of `--json`."""

    name: str
    unit: str
    ours: float  # median
    peer: float  # median
    peer_name: str
    ratio: float  # bigger is better
    runs: int  # measurements of each side
    at_least: float
    ok: bool


def rate(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    at_least: float,
) -> Row:
    """Compare rates: more is better."""
    mine, theirs = statistics.median(ours), statistics.median(peer)
    ratio, runs = mine / theirs, min(len(ours), len(peer))
    return Row(name, unit, mine, theirs, peer_name, ratio, runs, at_least, ratio >= at_least)


def duration(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    at_least: float,
) -> Row:
    """Compare times: less is better, so the ratio is peer/ours."""
    mine, theirs = statistics.median(ours), statistics.median(peer)
    ratio, runs = theirs / mine, min(len(ours), len(peer))
    return Row(name, unit, mine, theirs, peer_name, ratio, runs, at_least, ratio >= at_least)


class Report:
    """Prints rows as they come: a table for people, or JSON lines and nothing else on stdout."""

    def __init__(self, title: str, *, as_json: bool) -> None:
        self._as_json = as_json
        self._rows: list[Row] = []
        self.note(f"# {title}")
        self.note(f"# {machine()}")

    def note(self, text: str) -> None:
        """Say something that is no row: progress, raw figures, the machine."""
        print(text, file=sys.stderr if self._as_json else sys.stdout, flush=True)

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if self._as_json:
            print(json.dumps(asdict(row)), flush=True)
            return
        verdict = "ok" if row.ok else "TOO SLOW"
        print(
            f"{row.name:22} ours {row.ours:>12,.4g} {row.unit}, {row.peer_name} {row.peer:,.4g}"
            f" {row.unit}: ratio {row.ratio:.2f} (at least {row.at_least:.2f}),"
            f" medians of {row.runs}: {verdict}",
            flush=True,
        )

    def exit_code(self) -> int:
        """0 when every row is good enough, else 1."""
        return 0 if all(row.ok for row in self._rows) else 1


def arguments(description: str) -> argparse.ArgumentParser:
    """Give the options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON line a row, nothing else")
    parser.add_argument("--quick", action="store_true", help="all rows in under a minute")
    return parser


def machine() -> str:
    """Describe where it ran, in one line."""
    cpuinfo = Path("/proc/cpuinfo").read_text(errors="replace")
    models = [
        line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB,"
        f" load {os.getloadavg()[0]:.1f}, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}"
    )
