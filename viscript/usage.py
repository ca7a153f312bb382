"""What launched programs and all their children use, by one look at /proc for all of them together."""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(Struct, frozen=True):
    """Sums over the processes of one launch; seconds and bytes."""

    cpu_seconds: float = 0.0  # its own and those of children that have ended
    rss: int = 0
    threads: int = 0
    files: int = 0
    processes: int = 0


class Root(Struct, frozen=True):
    """Where the processes of a launch hang: below its keeper, or in its program's session."""

    keeper: int
    leader: int


class Seen(Struct, frozen=True):
    """What one line of /proc/PID/stat says."""

    parent: int
    session: int
    zombie: bool
    ticks: int  # of CPU
    threads: int
    pages: int  # resident


def scan(roots: Mapping[int, Root]) -> dict[int, Sample]:
    """What each launch uses now; what ends meanwhile or may not be read counts nothing.

    Every process is looked at once, however many launches there are: 50 of them cost a few milliseconds.
    """
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        table = {pid: seen for pid in _pids(proc) if (seen := _look(proc, pid)) is not None}
        owners = owners_of({pid: (x.parent, x.session) for pid, x in table.items()}, roots)
        sums: dict[int, list[Seen]] = {number: [] for number in roots}
        files = dict.fromkeys(roots, 0)
        for pid, number in owners.items():
            if not table[pid].zombie:
                sums[number].append(table[pid])
                files[number] += _files(proc, pid)
    finally:
        os.close(proc)
    return {number: _sum(found, files[number]) for number, found in sums.items()}


def owners_of(table: Mapping[int, tuple[int, int]], roots: Mapping[int, Root]) -> dict[int, int]:
    """Which launch each process belongs to, of those that belong to any. Pure.

    `table` maps pids to parent and session. As keepers see it: the program, its session, and whatever
    descends from keeper or program, also in another session.
    """
    leaders = {root.leader: number for number, root in roots.items()}
    keepers = {root.keeper: number for number, root in roots.items()}
    owner: dict[int, int | None] = dict.fromkeys(keepers)  # themselves they are nobody's
    for start in table:
        pid, way, found = start, list[int](), None
        while pid in table and pid not in owner and found is None:
            owner[pid] = None  # so that a loop, which a changing /proc could show, ends
            way.append(pid)
            above, session = table[pid]
            found = leaders.get(pid, leaders.get(session, keepers.get(above)))
            pid = above
        if found is None:
            found = owner.get(pid)
        owner.update(dict.fromkeys(way, found))
    return {pid: number for pid, number in owner.items() if number is not None}


def _sum(found: list[Seen], files: int) -> Sample:
    return Sample(
        sum(x.ticks for x in found) / _TICK,
        sum(x.pages for x in found) * _PAGE,
        sum(x.threads for x in found),
        files,
        len(found),
    )


def _pids(proc: int) -> list[int]:
    return [int(name) for name in os.listdir(proc) if name.isdecimal()]


def _look(proc: int, pid: int) -> Seen | None:
    try:
        file = os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return None
    try:
        text = os.read(file, 1024)
    except OSError:  # it ended just now
        return None
    finally:
        os.close(file)
    # The name before may hold anything; of the rest, up to the resident pages.
    fields = text[text.rindex(b")") + 2 :].split(None, 22)
    return Seen(
        int(fields[1]), int(fields[3]), fields[0] in b"ZX",
        int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14]),
        int(fields[17]), int(fields[21]),
    )  # fmt: skip


def _files(proc: int, pid: int) -> int:
    """Open descriptors: the size of the folder since Linux 6.2, before that its entries."""
    try:
        size = os.stat(f"{pid}/fd", dir_fd=proc).st_size
        return size or len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except OSError:
        return 0
