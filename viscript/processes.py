"""Keepers as the daemon sees them: start one, talk to one, find out what became of one."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from viscript.errors import Failed
from viscript.home import is_locked
from viscript.keeping import PROTO, kernel
from viscript.nursery import nursery
from viscript.rules import LOGGED, STOP, LogRule, StopStep
from viscript.supervision.states import Exit

LINE = 64 << 10
ANSWER = 3.0  # seconds for a keeper to do what it is told
SWEEPS, SWEEP_PAUSE = 100, 0.02  # looks at what was killed, seconds between them
_HARMLESS = re.compile(r"\d{4}-\d\d-\d\dT\S+ (?:debug|info|warning) ")
_user_umask = -1  # as it is


def keep_private() -> None:
    """From now on our own files are the owner's alone; programs still get the mask of the user."""
    global _user_umask  # noqa: PLW0603 - as the mask itself, one a process
    _user_umask = os.umask(0o077)


def keep_no_longer_private() -> None:
    """As before `keep_private`, for what we are about to become."""
    if _user_umask >= 0:
        os.umask(_user_umask)


def _usual_umask() -> int:
    if _user_umask >= 0:
        return _user_umask
    mask = os.umask(0o077)  # it can only be read by being changed
    os.umask(mask)
    return mask


class Report(msgspec.Struct, frozen=True):
    """What a keeper says or left behind in state.json."""

    proto: int
    id: str
    generation: int
    state: str  # starting, running, exited (its processes not yet), gone, failed
    pid: int | None
    start_ticks: int | None
    boot_id: str
    keeper_pid: int
    code: int | None
    signal: int | None
    errno: int | None
    error: str | None
    killed: bool
    started: float
    ended: float | None
    left: list[int]
    ready: bool = False  # it said so with sd_notify
    status: str = ""  # what it said of itself with sd_notify
    watchdog: float | None = None  # Unix seconds of its last WATCHDOG=1
    extended: float | None = (
        None  # on the monotonic clock: until then it wants time to begin or end
    )
    dropped: int = 0  # bytes of output that could not be written
    writer: bool = False  # somebody types into its terminal
    mark: str = ""  # in the environment of all its processes, by which those that fled are found
    master: int | None = None  # number of its own descriptor of its terminal

    @property
    def exit(self) -> Exit:
        return Exit(self.code, self.signal)


class Fate(Enum):
    """What a launch folder tells of its generation."""

    KEPT = "a keeper holds the lock"
    ORPHANED = "the process is alive, its keeper is not"
    UNKNOWN = "something of it is alive, but there is no record of it that could be read"
    LEFT = "keeper and program have ended, what the program started has not"
    ENDED = "nothing is alive"


class Spec(Struct, frozen=True):
    """What a keeper runs, and how."""

    id: int
    generation: int
    argv: tuple[str, ...]
    cwd: str
    log: Path
    ctl: Path
    stop: tuple[StopStep, ...] = STOP  # before KILL
    limits: Mapping[str, int] = {}  # soft and hard
    nice: int | None = None
    user: str = ""  # name or number; empty: as the daemon
    group: str = ""
    umask: int | None = None  # None: the user's who started the daemon
    terminal: bool = False  # it gets one of its own, which can be attached to
    notify: bool = False  # it gets NOTIFY_SOCKET
    rule: LogRule = LOGGED
    # Where another user has no way to, by the variable that names it: a private file, a folder of its own.
    lent: Mapping[str, str] = {}

    def fields(self, adopt: Report | None) -> dict[str, object]:
        """As a keeper reads them."""
        plain = ("generation", "argv", "cwd", "nice", "user", "group", "terminal", "notify")
        return {
            "id": str(self.id), "log": str(self.log), "ctl": str(self.ctl),
            **{name: getattr(self, name) for name in plain},
            "stop": [(step.signal, step.wait) for step in self.stop], "limits": dict(self.limits),
            "lent": dict(self.lent),
            "umask": _usual_umask() if self.umask is None else self.umask,
            "rule": asdict(self.rule), "adopt": adopt and msgspec.to_builtins(adopt),
        }  # fmt: skip


def spawn(folder: Path, spec: Spec, env: Mapping[str, str], adopt: Report | None = None) -> Report:
    """Start a keeper and wait until its program runs or could not be started, as the report says.

    With `adopt` it takes over what runs, by the rules that this was started with. Blocks. `Failed` when the
    keeper itself cannot be started or another holds the folder's lock.
    """
    return _report(folder, nursery.ask(_request(folder, spec, env, adopt)))


async def spawned(
    folder: Path, spec: Spec, env: Mapping[str, str], adopt: Report | None = None
) -> Report:
    """`spawn`, while others go on."""
    return _report(folder, await nursery.asked(_request(folder, spec, env, adopt)))


def _request(
    folder: Path, spec: Spec, env: Mapping[str, str], adopt: Report | None
) -> dict[str, object]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{folder}: cannot be made: {error.strerror}") from None
    return {"folder": str(folder), "spec": spec.fields(adopt), "env": dict(env)}


def _report(folder: Path, answer: Mapping[str, object]) -> Report:
    if answer.get("locked"):
        raise Failed(f"{folder}: another keeper holds this launch; see: viscript la")
    if "state" not in answer:
        raise Failed(f"{folder}: the keeper cannot work: {answer.get('problem', 'no reason told')}")
    return msgspec.convert(answer["state"], Report)


def read_report(folder: Path) -> Report | None:
    """What was last known; None when nothing readable was left."""
    try:
        return msgspec.json.decode((folder / "state.json").read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError):
        return None


def look(folder: Path) -> tuple[Fate, Report | None]:
    """What can be proved of the generation in `folder`."""
    held = is_locked(folder / "spec.json") or is_locked(folder / "lock")  # that of keepers before
    report = read_report(folder)  # after the lock: a keeper writes its last state before it lets go
    if held:
        return Fate.KEPT, report
    if report is None:
        report = _unrecorded(folder)
    if report is None:
        return (Fate.UNKNOWN if _anything_of(folder) else Fate.ENDED), None
    if report.state in {"gone", "failed"} or report.boot_id != kernel.boot_id():
        return Fate.ENDED, report
    if report.pid is None:
        return Fate.ENDED, report
    if _lives(report):
        return Fate.ORPHANED, report
    return Fate.LEFT if _left(report) else Fate.ENDED, report


class _Begun(msgspec.Struct):
    """Of `spec.json`, what a program is known by that nobody could write down any more."""

    id: str
    generation: int
    mark: str = ""


def _unrecorded(folder: Path) -> Report | None:
    """A program whose keeper was killed when it had just begun it; one without a state has no other."""
    try:
        spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=_Begun)
    except (OSError, msgspec.MsgspecError):
        return None
    if not spec.mark:
        return None
    found = kernel.leader_bearing(f"VISCRIPT_MARK={spec.mark}")
    if found is None:
        return None
    pid, ticks = found
    return Report(
        PROTO, spec.id, spec.generation, "running", pid, ticks, kernel.boot_id(), 0, None, None, None, None,
        killed=False, started=time.time(), ended=None, left=[], mark=spec.mark,
    )  # fmt: skip


def _anything_of(folder: Path) -> list[int]:
    """Whose environment says that it is of this launch; to be asked only where there is no better proof."""
    if not folder.name.isdecimal():  # the broker's says nothing
        return []
    home, number = folder.parent.parent, folder.name
    return kernel.bearing(f"VISCRIPT_HOME={home}", f"VISCRIPT_ID={number}")


def _lives(report: Report) -> bool:
    found = kernel.process_stat(report.pid or 0)
    return found is not None and found[3] == report.start_ticks and found[0] not in "ZX"


def _left(report: Report) -> list[tuple[int, int]]:
    return kernel.members(report.pid or 0, report.start_ticks, mark=report.mark)


def sweep(report: Report) -> None:
    """Kill what has outlived its program and its keeper, and wait for its end, but not for ever."""
    for _ in range(SWEEPS):
        left = _left(report)
        if not left:
            return
        for pid, ticks in left:
            kernel.send(pid, ticks, signal.SIGKILL)
        time.sleep(SWEEP_PAUSE)


def clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


class Link:
    """A connection to one keeper."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, ctl: Path) -> Link:
        """`OSError` when nobody listens."""
        return cls(*await asyncio.open_unix_connection(ctl, limit=LINE))

    async def reports(self) -> AsyncIterator[Report]:
        """The state now and at every change, until the keeper hangs up."""
        while True:
            try:
                line = await self._reader.readline()
            except (OSError, ValueError):
                return
            if not line:
                return
            yield msgspec.json.decode(line, type=Report)

    def stop(self, steps: Sequence[StopStep] = STOP) -> None:
        """One step after the other, then KILL until nothing of it is left; none: KILL now."""
        grace = sum(step.wait for step in steps)  # what keepers of protocol 1 understand
        pairs = [(step.signal, step.wait) for step in steps]
        self._order({"do": "stop", "grace": grace, "steps": pairs})

    def signal(self, number: int, *, group: bool = False) -> None:
        """To the program itself, or to all its processes."""
        self._order({"do": "signal", "signal": number, "group": group})

    def write(self, data: bytes) -> None:
        """Type into its terminal."""
        self._order({"do": "write", "data": base64.b64encode(data).decode()})

    def _order(self, order: Mapping[str, object]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(order).encode() + b"\n")

    def close(self) -> None:
        self._writer.close()


async def typed(ctl: Path, data: bytes) -> str:
    """Type into a terminal; why it cannot be done, else empty."""
    try:
        reader, writer = await asyncio.open_unix_connection(ctl, limit=LINE)
        order = {"do": "write", "data": base64.b64encode(data).decode()}
        writer.write(json.dumps(order).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER):
                told: dict[str, object] = {}
                while not told.keys() & {"typed", "refused"}:  # the state is told unasked
                    told = json.loads(await reader.readline())
        finally:
            writer.close()
        return str(told.get("refused", ""))
    except (OSError, ValueError) as problem:  # TimeoutError is an OSError
        return f"its keeper does not answer: {problem}"


def tail(path: Path, lines: int, limit: int = 1 << 16) -> list[str]:
    """The last lines of a log, at most `limit` bytes of them; none when there is no log."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            found = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return found[-lines:] if size <= limit else found[1:][-lines:]


def end_of(path: Path) -> int:
    """Up to where a log is written now."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def complaint(path: Path, since: int) -> str | None:
    """The last line of a log, if it was written after `since` and tells of an error."""
    end = end_of(path)
    if end == since:
        return None
    told = tail(path, 1)
    return told[0] if told and told[0] and not _HARMLESS.match(told[0]) else None
