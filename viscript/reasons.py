"""Why a launch is as it is, in words: what it waits for, why it failed, what comes next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from viscript.records import ExitInfo, Status

# What exit codes mean by convention: of shells, and of sysexits.h.
_CODES = {
    2: "by convention: wrong usage",
    64: "by convention: wrong usage",
    66: "by convention: an input cannot be read",
    69: "by convention: something it needs is not available",
    77: "by convention: no permission",
    78: "by convention: a wrong configuration",
    126: "by convention: a command cannot be executed",
    127: "by convention: a command was not found",
}
_SIGNALS = {
    "SIGKILL": "somebody killed it; if nobody did, the kernel may have been out of memory (see: dmesg)",
    "SIGSEGV": "a fault in the program itself",
    "SIGABRT": "the program gave up by itself",
    "SIGBUS": "a fault in the program itself, or a full disk below a mapped file",
    "SIGILL": "a program for another processor, or a fault in it",
    "SIGSYS": "a system call that it may not make",
    "SIGXCPU": "its limit of CPU time (limits.cpu)",
    "SIGXFSZ": "its limit of file size (limits.fsize)",
}


_GONE = {"not started", "exited"}  # it does not come about by itself


class Condition(Protocol):
    """What must come first: an entry of `after`."""

    @property
    def app(self) -> str: ...
    @property
    def until(self) -> str: ...


class Wait(Struct, frozen=True):
    """One thing a launch waits for."""

    app: str
    until: str  # started, ready or completed
    state: str  # of that app now; "not started" when it has no launch
    met: bool


class Reason(Struct, frozen=True):
    """A sentence, and what can be done."""

    text: str
    advice: list[str]


def waits(
    after: Iterable[Condition], launches: Iterable[Status], outcomes: Mapping[str, bool]
) -> list[Wait]:
    """What of `after` is met and what is not, as `viscript.supervision.order` has it.

    `launches` are those that have not ended; `outcomes` tells of apps that have whether they did so well.
    """
    live = sorted(launches, key=lambda status: status.id)
    return [
        _wait(condition, [x for x in live if x.app == condition.app], outcomes)
        for condition in after
    ]


def _wait(condition: Condition, mine: list[Status], outcomes: Mapping[str, bool]) -> Wait:
    app, until = condition.app, condition.until
    met = [status for status in mine if _met(until, status)]
    if met or mine:
        return Wait(app, until, (met or mine)[-1].state, bool(met))
    if app not in outcomes:
        return Wait(app, until, "not started", met=False)
    well = outcomes[app]
    return Wait(app, until, "exited" if well else "failed", met=well and until == "completed")


def _met(until: str, status: Status) -> bool:
    match until:
        case "started":
            begun = status.state == "starting" and status.pid is not None
            return begun or status.state in {"running", "degraded"}
        case "ready":
            return status.state == "running"
        case _:  # what has completed is no longer among the launches
            return False


def reason(status: Status, waiting: list[Wait], now: float) -> Reason:
    """Of a launch as it is. `now` in Unix seconds."""
    advice: list[str] = []
    match status.state:
        case "blocked":
            text, advice = _blocked(status, waiting)
        case "starting":
            text = "runs and is not ready yet" if status.pid else "is being started"
            text += _before(status)
        case "running":
            text = "runs and is ready" + (
                f", after {status.restarts} restarts" if status.restarts else ""
            )
            text += _before(status)
        case "backoff":
            text = _backoff(status, now)
        case "stopping":
            text = "is being stopped"
            advice = [f"it takes too long? viscript logs {status.id}"]
        case "lost":
            text = "can be proved neither alive nor dead, so it is not started a second time"
            advice = ["its keeper does not answer; see: viscript ping --json, ps"]
        case _:
            text, advice = _ended(status)
    if status.reason:
        text += f": {status.reason}"
    return Reason(text, advice)


def _blocked(status: Status, waiting: list[Wait]) -> tuple[str, list[str]]:
    open_ = [wait for wait in waiting if not wait.met]
    if not open_:
        return "waits", []
    told = ", ".join(f"{wait.app} to be {wait.until} (it is {wait.state})" for wait in open_)
    advice = [f"viscript {'start' if wait.state in _GONE else 'why'} {wait.app}" for wait in open_]
    # What the supervisor says of it would only repeat this.
    status.reason = ""
    return f"waits for {told}", advice


def _before(status: Status) -> str:
    if status.exit is None:
        return ""
    return f"; the run before ended with {meaning(status.exit)}"


def _backoff(status: Status, now: float) -> str:
    how = f"ended with {meaning(status.exit)}" if status.exit is not None else "did not start"
    count = f", {status.failures} times in a row" if status.failures > 1 else ""
    due = "soon"
    if status.next_try is not None:
        due = f"in {max(0.0, status.next_try - now):.1f} s"
    return f"{how}{count}; is started again {due}"


def _ended(status: Status) -> tuple[str, list[str]]:
    advice = []
    if status.exit is None:
        text = "never ran" if status.state == "failed" else "has ended before it ran"
    else:
        text = f"has ended with {meaning(status.exit)}"
    if status.state == "failed":
        advice = [f"viscript logs {status.id}", f"viscript start {status.app}"]
    return text, advice


def meaning(exit_: ExitInfo) -> str:
    """An exit with what it mostly means."""
    known = _SIGNALS.get(exit_.signal or "")
    if known is None and exit_.signal is None and exit_.code is not None:
        known = _CODES.get(exit_.code)
    own = exit_.how == "by itself"
    what = exit_.signal if exit_.signal is not None else f"exit code {exit_.code}"
    if exit_.signal is None and exit_.code is None:
        return f"an exit code that nobody knows ({exit_.how})"
    return f"{what}, {exit_.how}" + (f" ({known})" if known and own else "")
