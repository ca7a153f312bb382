"""What a launched program and its children use, by one look at /proc and psutil."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from viscript.keeper import process_stat


@dataclass(frozen=True)
class Sample:
    """Sums over the processes of one launch; seconds and bytes."""

    cpu_seconds: float
    rss: int
    threads: int
    files: int
    processes: int


def members(keeper: int, leader: int) -> list[int]:
    """Processes below the keeper, or in the program's session if its first keeper was killed."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    found = {pid: seen for pid in pids if (seen := process_stat(pid)) is not None}
    mine = []
    for pid, (_, above, session, _) in found.items():
        top = above
        while top in found and top not in {keeper, leader}:
            top = found[top][1]
        if leader in {pid, session} or top in {keeper, leader}:
            mine.append(pid)
    return mine


def measure(keeper: int, leader: int) -> Sample:
    """What they use now; those that end meanwhile or may not be read count nothing."""
    cpu, rss, threads, files, count = 0.0, 0, 0, 0, 0
    for pid in members(keeper, leader):
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                cpu += times.user + times.system + times.children_user + times.children_system
                rss += process.memory_info().rss
                threads += process.num_threads()
            count += 1
            files += process.num_fds()
        except psutil.Error:
            continue
    return Sample(cpu, rss, threads, files, count)
