"""What the daemon and the command line say to each other besides the commands: where, and errors."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from bus.errors import Refused
from viscript.errors import BY_NAME, Failed, ViscriptError
from viscript.records import Status

_HTTP = {"usage": 400, "denied": 403, "not_found": 404, "timeout": 408, "conflict": 409}


class DaemonInfo(Struct, frozen=True):
    """`daemon.json`: how to reach the daemon of a home. Nothing in it is secret."""

    pid: int
    key: str
    endpoint: str
    broker_key: str
    config: str
    since: float


class Event(Struct, frozen=True, omit_defaults=True):
    """A line of what the daemon tells the `up` that started it."""

    kind: Literal["broker", "notice", "warning", "launch", "problem", "up", "error"]
    launch: Status | None = None
    app: str = ""
    text: str = ""
    error: str = ""  # the name of an error class
    failed: list[str] = []  # with "up": apps that this `up` was to start and that do not run


# Jobs: what a verb asks for is done in the daemon, whether or not anybody waits for it.

JobState = Literal[
    "working",
    "done",  # all targets are as wanted
    "failed",  # at least one is not
    "cancelled",  # told not to go on; what had begun goes on
    "unknown",  # the daemon ended meanwhile: it may have happened or not
]
StepState = Literal["waiting", "working", "done", "failed", "cancelled", "unknown"]


class Step(Struct):
    """One target of a job. `launch` is how it was seen last."""

    app: str
    state: StepState = "waiting"
    id: int | None = None  # null while there is no launch yet
    text: str = ""  # for people: why it is in this state
    error: str = ""  # the name of an error class, when it failed
    launch: Status | None = None
    since: float = 0.0  # Unix seconds


class Job(Struct):
    """One verb that was asked for, and what has become of it: `viscript job show --json`."""

    job: int
    verb: str
    state: JobState
    by: str  # name of the key, or the key
    key: str
    asked: float  # Unix seconds
    ended: float | None = None
    text: str = ""
    steps: list[Step] = []
    version: int = 0  # grows with every change


def refuse(error: ViscriptError) -> Refused:
    """An error as it travels over the bus."""
    return Refused(_HTTP.get(error.name, 500), error.name, str(error))


def accept(name: str, text: str) -> ViscriptError:
    """The error that travelled."""
    return BY_NAME.get(name, Failed)(text)
