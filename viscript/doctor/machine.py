"""Whether this machine and its Python can run viscript. Pure: `viscript.commands.doctor` does the looking."""

from __future__ import annotations

from dataclasses import dataclass

from viscript.doctor.model import Finding, broken, warning, well

OLDEST = (3, 11)
FILES_FEW, FILES_TOO_FEW = 1024, 256  # open files of a process
PROCESSES_FEW = 512
MIB = 1 << 20
ROOM_LITTLE, ROOM_NONE = 500 * MIB, 50 * MIB
INODES_FEW = 1000
BEGAN = 1_735_689_600.0  # Unix seconds, 2025-01-01: no clock that is right says less
BACK = 60.0  # seconds that a file may be newer than now
SKEW_SEEN, SKEW_BAD = 2.0, 60.0  # seconds


@dataclass(frozen=True)
class Space:
    """What is left for files on a file system; `inodes` None where it does not count them."""

    where: str
    free: int
    inodes: int | None = None


def python(version: tuple[int, int, int], program: str) -> Finding:
    shown = ".".join(map(str, version))
    if version[:2] < OLDEST:
        needed = ".".join(map(str, OLDEST))
        todo = f"make the environment anew with Python {needed} or newer"
        return broken("python", f"Python {shown} is too old", program, todo)
    return well("python", f"Python {shown}", program)


def libzmq(version: str, problem: str | None) -> Finding:
    """`problem` is why no CURVE socket can be made here."""
    if problem is None:
        return well("libzmq", f"pyzmq {version} with CURVE")
    todo = "install pyzmq from its wheel: pip install --force-reinstall pyzmq"
    return broken("libzmq", problem, f"pyzmq {version}", todo)


def limits(files: int, processes: int) -> Finding:
    """Soft limits of this process; negative: none."""
    if 0 <= files < FILES_TOO_FEW:
        text = f"a process may open only {files} files, too few for a broker"
        return broken("limits", text, "ulimit -n", f"raise it: ulimit -n {FILES_FEW * 4}")
    if 0 <= files < FILES_FEW:
        text = f"a process may open only {files} files"
        return warning("limits", text, "ulimit -n", f"raise it: ulimit -n {FILES_FEW * 4}")
    if 0 <= processes < PROCESSES_FEW:
        text = f"a user may have only {processes} processes"
        return warning("limits", text, "ulimit -u", "raise it: ulimit -u 4096")
    shown = "any number of" if files < 0 else str(files)
    return well("limits", f"{shown} open files")


def disk(space: Space) -> Finding:
    shown = f"{space.free // MIB} MiB free"
    todo = "make room; what apps print is kept below the home: logs"
    if space.free < ROOM_NONE:
        return broken("disk", f"only {shown}: state can soon not be written", space.where, todo)
    if space.free < ROOM_LITTLE:
        return warning("disk", f"only {shown}", space.where, todo)
    if space.inodes is not None and space.inodes < INODES_FEW:
        return warning("disk", f"only {space.inodes} files more are possible", space.where, todo)
    return well("disk", shown, space.where)


def clock(now: float, newest: float, where: str) -> Finding:
    """`newest` is when the youngest file of the home, `where`, was written."""
    todo = "set the clock, and have it kept right (NTP)"
    if now < BEGAN:
        return broken(
            "clock", f"the clock is {(BEGAN - now) / 86400:.0f} days behind at least", "", todo
        )
    if newest > now + BACK:
        text = f"the clock has gone back: a file is {newest - now:.0f} s newer than now"
        return warning("clock", text, where, todo)
    return well("clock", "plausible")


def skew(seconds: float, where: str) -> Finding:
    """How far the broker's clock is ahead of ours."""
    shown = f"the broker's clock is {abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}"
    todo = "set the clocks of both machines, and have them kept right (NTP)"
    if abs(seconds) > SKEW_BAD:
        return broken("skew", f"{shown}; join strings and ages cannot be right", where, todo)
    if abs(seconds) > SKEW_SEEN:
        return warning("skew", shown, where, todo)
    return well("skew", "the broker's clock agrees", where)
