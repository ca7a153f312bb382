"""From a launch to what its keeper runs: the command, its folder, and what the program is told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from bus.identity import Address
from viscript import catalog
from viscript.config import App, Config
from viscript.home import PYTHON, Home
from viscript.processes import Spec
from viscript.records import Record
from viscript.rules import NO_PROBE, STOP, Probe, StopStep

INSTANCE = "{i}"
LENT = ("VISCRIPT_KEY_FILE", "VISCRIPT_STATE")  # in the home, which is closed to other users
# What a service manager tells the daemon: a program would answer in its place.
OF_THE_DAEMON = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
)


class Place(Struct, frozen=True):
    """What every launched program is told of where it is."""

    address: Address
    launcher: str  # the daemon's public key
    env: Mapping[str, str] | None = None  # `inherited`, if that is known already


class Prepared(Struct, frozen=True):
    """What a keeper runs, and how."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    app: App | None = None  # None: the broker
    stops: tuple[StopStep, ...] = STOP

    def spec(self, number: int, generation: int, output: Path, ctl: Path) -> Spec:
        plain = Spec(number, generation, self.argv, self.cwd, output, ctl, stop=self.stops)
        app = self.app
        if app is None:
            return plain
        return replace(
            plain, limits=app.limits, nice=app.nice or None, user=app.user or "",
            group=app.group or "", umask=app.umask, terminal=app.terminal, rule=app.log,
            lent={name: self.env[name] for name in LENT} if app.user else {},
            notify=app.ready.kind == "notify" or (app.alive or NO_PROBE).kind == "notify",
        )  # fmt: skip


def broker(home: Home) -> Prepared:
    argv = (*PYTHON, "-P", "-m", "bus.cli", "run", str(home.root))
    return Prepared(argv, str(home.root), inherited(home))


def program(home: Home, settings: Config, place: Place, record: Record, entry: App) -> Prepared:
    """`ViscriptError` when its entry is gone or cannot be run. Makes the folder of the launch."""
    app = for_instance(entry, record.instance)
    command = catalog.command(settings, app, tuple(record.args), search())
    own = home.app_state(record.slot)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    env = {**(inherited(home) if place.env is None else place.env), **command.env}
    env |= {
        "VISCRIPT_RUN": str(home.run),
        "VISCRIPT_BROKER": place.address.endpoint,
        "VISCRIPT_BROKER_KEY": place.address.key,
        "VISCRIPT_KEY_FILE": str(home.app_key(record.slot)),
        "VISCRIPT_APP": record.app,
        "VISCRIPT_ID": str(record.id),
        "VISCRIPT_INSTANCE": str(record.instance),
        "VISCRIPT_LAUNCHER": place.launcher,
        "VISCRIPT_STATE": str(own),
    }
    if app.alive is not None and app.alive.kind == "notify":  # as sd_watchdog_enabled(3) reads it
        env["WATCHDOG_USEC"] = str(int(app.alive.timeout * 1e6))
    return Prepared(command.argv, command.cwd or str(own), env, app, record.stops)


def for_instance(app: App, number: int) -> App:
    """`app` with its number in what the configuration says; what a user adds stays as it is typed."""

    def fill(words: Iterable[str]) -> tuple[str, ...]:
        return tuple(word.replace(INSTANCE, str(number)) for word in words)

    def aim(probe: Probe) -> Probe:
        (target,) = (
            fill((probe.target,)) if isinstance(probe.target, str) else (fill(probe.target),)
        )
        return replace(probe, target=target)

    return replace(
        app, default_args=fill(app.default_args), args=fill(app.args), ready=aim(app.ready),
        env=dict(zip(app.env, fill(app.env.values()), strict=True)),
        alive=aim(app.alive) if app.alive is not None else None,
    )  # fmt: skip


def search() -> str:
    return os.environ.get("PATH", os.defpath)


def inherited(home: Home) -> dict[str, str]:
    """What of the daemon's own environment every program gets."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VISCRIPT_") and name not in OF_THE_DAEMON
    }
    return env | {"VISCRIPT_HOME": str(home.root)}
