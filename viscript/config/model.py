"""What a configuration file says, as values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from viscript.rules import (
    LOGGED,
    NO_PROBE,
    NO_RESTART,
    STOP,
    After,
    LogRule,
    Probe,
    RestartRule,
    StopStep,
)

Role = Literal["app", "node", "manager", "tracker", "observer"]


class App(Struct, frozen=True):
    """One entry of `apps:` as written; `place` is file:line of its path."""

    name: str
    path: str
    place: str
    desc: str = ""
    help: str = ""
    daemon: bool = False  # kept from the original; every app is started in the background
    default_args: tuple[str, ...] = ()
    args: tuple[str, ...] = ()  # after default_args, before the user's
    env: Mapping[str, str] = {}
    env_file: tuple[str, ...] = ()  # read at each start; `env` goes before them
    cwd: str | None = None
    autostart: bool = False
    instances: int = 1  # `{i}` in args and env becomes 0, 1, …
    restart: RestartRule = NO_RESTART
    after: tuple[After, ...] = ()
    ready: Probe = NO_PROBE
    alive: Probe | None = None
    stop: tuple[StopStep, ...] = STOP
    reload: int | None = None  # the signal that makes it read its configuration again
    role: Role = "app"
    short: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    limits: Mapping[str, int] = {}  # by the words of LIMITS
    nice: int = 0
    user: str | None = None  # a name or a number
    group: str | None = None
    umask: int | None = None
    terminal: bool = False
    log: LogRule = LOGGED
    # Of the keys that are written, as `restart.delay`: file:line.
    places: Mapping[str, str] = {}


class Config(Struct, frozen=True):
    """A whole file. `folder` is what relative paths are relative to."""

    file: Path
    apps: Mapping[str, App]
    endpoint: str | None = None  # of the broker; None: a free loopback port
    settings: Mapping[str, bool] = {}
    is_kept: bool = False  # what was in the file once: what is in it now is broken

    @property
    def folder(self) -> Path:
        return self.file.parent
