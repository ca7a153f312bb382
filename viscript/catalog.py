"""From an app's entry and a user's arguments to what is run. Pure: it looks at files only if asked.

User arguments are added to the configured ones, never put in their place, and nothing changes their case.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from viscript import accounts, envfile
from viscript.config import App, Config
from viscript.errors import BadConfig, NotFound
from viscript.words import did_you_mean

PYTHON = "python:"


class Command(Struct, frozen=True):
    """What is executed: `argv[0]` is an absolute path."""

    argv: tuple[str, ...]
    cwd: str | None  # None: the app's own state folder
    env: Mapping[str, str]  # added to the daemon's own


class Offered(Struct, frozen=True):
    """An app of the configuration as selectors and roles see it, launched or not."""

    app: str
    groups: tuple[str, ...] = ()


def offered(app: App) -> Offered:
    return Offered(app.name, tuple(getattr(app, "groups", ())))


def ad_hoc(name: str, argv: Sequence[str], cwd: str) -> App:
    """The app that `viscript run` makes of a command."""
    path, *args = argv
    return App(name, path, "viscript run", args=tuple(args), cwd=cwd)


def find(config: Config, word: str) -> App:
    """The app called `word`, by name or alias; `NotFound` says which there are."""
    if word in config.apps:
        return config.apps[word]
    others = aliases(config)
    if word in others:
        return config.apps[others[word]]
    known = [*config.apps, *others]
    hint = did_you_mean(word, known) or "; see: viscript apps"
    raise NotFound(f"no app {word!r} in {config.file}{hint}")


def aliases(config: Config) -> dict[str, str]:
    """The names of apps by their other names."""
    return {alias: app.name for app in config.apps.values() for alias in app.short}


def command(config: Config, app: App, arguments: tuple[str, ...], search: str) -> Command:
    """What `app` with `arguments` runs; `BadConfig` when its path cannot be run, or not as it is told to.

    `search` is a PATH, used when the path has no slash. Files of environment variables are read now.
    """
    accounts.check(app)
    env = environment(config, app)
    cwd = folder(config, app)
    if app.path.startswith(PYTHON):
        env = {"PYTHONUNBUFFERED": "1", **env}
    return Command(argv(config, app, arguments, search), cwd, env)


def folder(config: Config, app: App) -> str | None:
    """Its working folder; None: one of its own. `BadConfig` when it is none."""
    if app.cwd is None:
        return None
    cwd = config.folder / Path(app.cwd).expanduser()
    if not cwd.is_dir():
        place = app.places.get("cwd", app.place)
        raise BadConfig(f"{place}: apps.{app.name}.cwd: {cwd} is not a folder")
    return str(cwd)


def argv(config: Config, app: App, arguments: tuple[str, ...], search: str) -> tuple[str, ...]:
    """What is executed; `BadConfig` when there is no such thing, or it is no program."""
    given = (*app.default_args, *app.args, *arguments)
    if app.path.startswith(PYTHON):
        module = app.path.removeprefix(PYTHON)
        if not all(part.isidentifier() for part in module.split(".")):
            raise BadConfig(
                f"{app.place}: apps.{app.name}.path: {module!r} is not the name of a module"
            )
        # -P keeps a folder of the same name in the cwd from being run instead.
        return (sys.executable, "-P", "-m", module, *given)
    return (_executable(config, app, search), *given)


def environment(config: Config, app: App) -> dict[str, str]:
    """What its entry adds to the environment: its files, each before the next, then `env`."""
    found: dict[str, str] = {}
    for name in app.env_file:
        try:
            found |= envfile.load(config.folder / Path(name).expanduser())
        except BadConfig as error:
            place = app.places.get("env_file", app.place)
            raise BadConfig(f"{place}: apps.{app.name}.env_file: {error}") from None
    return {**found, **app.env}


def fingerprint(config: Config, app: App) -> str:
    """Tells whether the contents of its files of variables are the same; nothing else can be told from it.

    Empty without files, and when they cannot be read.
    """
    if not app.env_file:
        return ""
    try:
        found = environment(config, replace(app, env={}))
    except BadConfig:
        return ""
    # 32 bits: enough to see a change, too few to try out secrets with.
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:8]


def beginning(apps: Mapping[str, App]) -> int:
    """How many programs come up by themselves, with the broker."""
    return 1 + sum(app.instances for app in apps.values() if app.autostart)


def needing_bus(apps: Mapping[str, App]) -> set[str]:
    """Names of those that are ready on the bus only, and of what is after them."""
    found: set[str] = set()
    for app in order(apps):
        if app.ready.kind == "bus" or any(after.app in found for after in app.after):
            found.add(app.name)
    return found


def _executable(config: Config, app: App, search: str) -> str:
    where = f"{app.place}: apps.{app.name}.path"
    if "/" not in app.path:
        for folder in [*search.split(os.pathsep), str(config.folder)]:
            found = Path(folder) / app.path
            if folder and found.is_file() and os.access(found, os.X_OK):
                return str(found)
        raise BadConfig(f"{where}: {app.path!r} is on no folder of PATH, nor beside the file")
    path = config.folder / Path(app.path).expanduser()
    if not path.exists():
        raise BadConfig(f"{where}: {path} does not exist")
    if path.is_dir():
        raise BadConfig(f"{where}: {path} is a folder, not a program")
    if not os.access(path, os.X_OK):
        raise BadConfig(f"{where}: {path} is not executable; run: chmod +x {path}")
    return str(path)


def order(apps: Mapping[str, App]) -> list[App]:
    """All apps, each after those it is `after`; otherwise as written."""
    placed: dict[str, App] = {}
    for first in apps.values():
        way = [first]  # no recursion: a chain may be long
        while way:
            app = way[-1]
            needed = next((x.app for x in app.after if x.app not in placed), None)
            if needed is not None:
                way.append(apps[needed])
            else:
                placed[way.pop().name] = app
    return list(placed.values())
