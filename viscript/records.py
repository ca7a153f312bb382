"""What is known of launches, as it is stored, sent and shown."""

from __future__ import annotations

import signal
from typing import Any, Literal

from msgspec import Struct

from viscript.rules import NO_PROBE, NO_RESTART, STOP, After, Policy, Probe, RestartRule, StopStep

Restart = Policy


class ExitInfo(Struct, frozen=True):
    """How a launch ended. Code and signal are both null when nobody saw it."""

    code: int | None
    signal: str | None  # SIGKILL, …
    how: str  # "by itself", or what made it end

    @classmethod
    def of(cls, code: int | None, number: int | None, how: str) -> ExitInfo:
        name = None
        if number is not None:
            try:
                name = signal.Signals(number).name
            except ValueError:  # real-time signals have no names
                name = f"SIG{number}"
        return cls(code, name, how)

    def __str__(self) -> str:
        if self.signal is not None:
            return f"{self.signal}, {self.how}"
        return f"{'unknown' if self.code is None else self.code}, {self.how}"


class Status(Struct, kw_only=True):
    """One launch as everybody may see it: an entry of `viscript la --json`. Times are Unix seconds."""

    id: int
    app: str
    state: str
    pid: int | None = None  # of the program itself; null when it does not run
    key: str
    since: float  # when it came into this state
    exit: ExitInfo | None = None  # of the last run that ended
    args: list[str]
    restarts: int = 0
    reason: str = ""  # of the state, for people
    started: float
    ended: float | None = None
    instance: int = 0  # 0, 1, …: app:0, app:1
    groups: tuple[str, ...] = ()
    wanted: Literal["up", "down"] = "up"  # what was asked for last
    generation: int = 0  # runs so far
    ready: bool = False  # it has been in this run
    failures: int = 0  # in a row
    next_try: float | None = None  # of what waits to be started again
    host: str = ""  # empty where there is only one
    seen: float | None = (
        None  # Unix seconds; set if its host cannot be reached and this is from then
    )


class AdHoc(Struct, frozen=True):
    """What `viscript run` was given: an app that is in no configuration."""

    argv: list[str]
    cwd: str


class Record(Status, kw_only=True):
    """One launch as the launcher stores it."""

    slot: str  # app, app-2, …: whose key and folder it has
    session: int  # grows with every fresh `up`
    configured: dict[str, Any] | None = None  # what this run was started with (config.planning)
    role: str
    after: tuple[After, ...] = ()
    ready_probe: Probe = NO_PROBE
    alive_probe: Probe | None = None
    restart: RestartRule = NO_RESTART
    stops: tuple[StopStep, ...] = STOP
    reload: int | None = None  # the signal for it
    stop: bool = False  # somebody wanted it stopped
    ad_hoc: AdHoc | None = None
    again: bool = False  # and then started
    problem: str = ""  # why we stop it, if nobody wanted it
    printed_from: int = 0  # bytes: where in its log the output of this run begins
    streak: int = 0  # restarts in a row since it was last stable
    cleared: bool = False  # it has failed and nobody wants to see that any more

    @property
    def on_bus(self) -> bool:
        """Whether it is ready when it is on the bus."""
        return self.ready_probe.kind == "bus"

    @property
    def live(self) -> bool:
        return self.ended is None

    def status(self) -> Status:
        return Status(**{name: getattr(self, name) for name in Status.__struct_fields__})


class Usage(Struct, kw_only=True):
    """Of a program and all its children. What is of the bus is null for who is not on it."""

    id: int
    app: str
    pid: int
    processes: int
    cpu_percent: float  # of one core, since the reading before: a quarter of a second to 15 seconds
    cpu_seconds: float
    rss: int  # bytes
    threads: int
    open_files: int
    bus_in: int | None = None  # bytes from the program to the broker
    bus_out: int | None = None
    bus_in_rate: float | None = None  # bytes per second
    bus_out_rate: float | None = None
    seconds: float = 0.0  # that the rates are over
    host: str = ""
    instance: int = 0


class Probed(Struct, frozen=True):
    """The last answer of a launch's own probe, `alive` or else `ready`."""

    kind: str  # tcp, http, exec, …
    ok: bool
    at: float  # Unix seconds
    seconds: float  # that it took
    text: str = ""  # why not


def of_old(found: dict[str, Any]) -> dict[str, Any]:
    """A record as 0.1 stored it before it had rules, in today's words."""
    found["after"] = [{"app": x} if isinstance(x, str) else x for x in found.get("after", [])]
    if isinstance(found.get("restart"), str):
        found["restart"] = {"policy": found["restart"]}
    _, _, number = found["slot"].removeprefix(found["app"]).rpartition("-")
    found["instance"] = int(number) - 1 if number.isdecimal() else 0
    if found.pop("on_bus", False):
        found["ready_probe"] = {"kind": "bus"}
    return found
