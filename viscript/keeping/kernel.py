"""What the kernel tells of processes, and signals that reach only who is meant."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36
SYS_PIDFD_GETFD = 438
PIDFD_GET_INFO, PIDFD_INFO_EXIT = 0xC040FF0B, 1 << 3
PF_KTHREAD = 0x00200000
LOOKS, PAUSE = 100, 0.01  # at what just becomes a program, seconds between them
SMALL = 4096  # bytes, more than a stat file has
INFO = "QQ11Ii"  # struct pidfd_info as far as the exit status


@functools.cache
def _libc() -> CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


Stat = tuple[str, int, int, int]  # state letter, parent, session, start time in clock ticks


def warm_up() -> None:
    """Import and look up now what is needed later, so that processes forked from this one share it."""
    _libc().prctl(PR_SET_NAME, b"keepers", 0, 0, 0)
    boot_id()
    for _ in range(20):
        process_stat(os.getpid())


@functools.cache
def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123 - pathlib costs memory
        return file.read().strip()


def process_stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    text = _read_small(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before may hold anything
    return fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19])


def _read_small(path: str) -> bytes:
    """What the kernel tells at once, or nothing; a file object would ask it seven things first."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, SMALL)
    except OSError:  # it has ended since
        return b""
    finally:
        os.close(fd)


def become_subreaper(name: str) -> None:
    """Orphans below us become our children; `ps` shows us as `name`."""
    _libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _libc().prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def members(
    leader: int, start_ticks: int | None, *, keeper: int = 0, mark: str = ""
) -> list[tuple[int, int]]:
    """Living processes of a program but its leader, with start times.

    They are in its session, or below its `keeper`, which may only be the process that asks and reaps its
    zombies here; or their environment bears the `mark`: what had fled the session of a program whose first
    keeper was killed is no child of the next.
    """
    found: dict[int, Stat] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal() and (seen := process_stat(int(name))) is not None:
            found[int(name)] = seen
    first = found.get(leader)
    reused = first is not None and first[3] != start_ticks
    mine: list[tuple[int, int]] = []
    for pid, (letter, parent, session, ticks) in found.items():
        if letter in "ZX":
            if parent == keeper and pid != leader:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        elif pid not in (leader, keeper) and (
            (session == leader and not reused)
            or (keeper and keeper in _ancestors(pid, found))
            or (mark and _bears(pid, f"VISCRIPT_MARK={mark}"))
        ):
            mine.append((pid, ticks))
    return mine


def is_only_child(pid: int) -> bool:
    """Whether we have this one child and no other; False where the kernel does not tell.

    When it is a zombie nothing is left below us that it began: whose parent ends becomes our child. Only we
    reap our children, so the list is whole.
    """
    return _read_small("/proc/thread-self/children").split() == [str(pid).encode()]


def _ancestors(pid: int, found: dict[int, Stat]) -> Iterator[int]:
    while pid in found and pid > 1:
        pid = found[pid][1]
        yield pid


def bearing(*variables: str) -> list[int]:
    """Processes in whose environment all of these stand, as NAME=VALUE."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    return [pid for pid in pids if _bears(pid, *variables)]


def _bears(pid: int, *variables: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            found = file.read().split(b"\0")
    except OSError:  # ended, or another user's
        return False
    return all(os.fsencode(each) in found for each in variables)


def leader_bearing(variable: str) -> tuple[int, int] | None:
    """The leader of a session in whose environment this stands, as NAME=VALUE, and its start time.

    Of several the first. What just becomes a program has no environment for a moment, so while there is such
    a one it is looked again.
    """
    for _ in range(LOOKS):
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
        waits = any(_is_being_born(pid) for pid in pids)  # before the look that is to find it
        found = [
            (stat[3], pid)
            for pid in pids
            if (stat := process_stat(pid)) is not None and stat[2] == pid and _bears(pid, variable)
        ]
        if found:
            return min(found)[1], min(found)[0]
        if not waits:
            return None
        time.sleep(PAUSE)
    return None


def _is_being_born(pid: int) -> bool:
    """Within execve(2), which gives it its environment last; False of what we may not look into."""
    text = _read_small(f"/proc/{pid}/stat")
    fields = text[text.rindex(b")") + 2 :].split() if text else [b"Z"]
    # No address of an environment; nor have kernel threads, and what has ended.
    if fields[0] in b"ZX" or int(fields[6]) & PF_KTHREAD or fields[47] != b"0":
        return False
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(fd)
    return True


def send(pid: int, ticks: int, number: int) -> None:
    """A signal to the process that started at `ticks`, and to no other that has its pid now."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            found = process_stat(pid)
            if found is not None and found[3] == ticks:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def exit_of(pid: int, start_ticks: int | None, pidfd: int) -> tuple[int | None, int | None] | None:
    """Code and signal of a process that has ended and is not our child; None: the kernel does not tell.

    Until its parent reaps it /proc tells, then, from Linux 6.15 on, the descriptor.
    """
    for status in (_status_of_zombie(pid, start_ticks), _status_told(pidfd)):
        if status is not None:
            signalled = os.WIFSIGNALED(status)
            return (None, os.WTERMSIG(status)) if signalled else (os.WEXITSTATUS(status), None)
    return None


def _status_of_zombie(pid: int, start_ticks: int | None) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return int(fields[49]) if fields[0] == b"Z" and int(fields[19]) == start_ticks else None


def _status_told(pidfd: int) -> int | None:
    info = bytearray(struct.pack(INFO, PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, *_, status = struct.unpack(INFO, info)
    return int(status) if mask & PIDFD_INFO_EXIT else None


def descriptor_of(pidfd: int, number: int) -> int:
    """A descriptor of another process, as ours; `OSError` when we may not trace it."""
    found = int(_libc().syscall(SYS_PIDFD_GETFD, pidfd, number, 0))
    if found < 0:
        import ctypes

        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found
