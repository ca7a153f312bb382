"""`viscript apps` and `viscript help APP`: what the configuration offers. Needs no daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.output import document, say, table

if TYPE_CHECKING:
    from viscript.config import App, Config


class Entry(Struct):
    """One app: an entry of `viscript apps --json`."""

    name: str
    desc: str
    help: str
    path: str
    short: tuple[str, ...]
    default_args: tuple[str, ...]
    args: tuple[str, ...]
    daemon: bool
    autostart: bool
    restart: str
    after: tuple[str, ...]
    ready: str
    role: str
    problem: str | None  # why it cannot be started as things are


def entry(config: Config, app: App) -> Entry:
    from viscript import catalog
    from viscript.errors import BadConfig

    problem = None
    try:
        catalog.command(config, app, (), os.environ.get("PATH", os.defpath))
    except BadConfig as error:
        problem = str(error)
    return Entry(
        app.name, app.desc, app.help, app.path, app.short, app.default_args, app.args, app.daemon,
        app.autostart, app.restart.policy, tuple(after.app for after in app.after), app.ready.kind,
        app.role, problem,
    )  # fmt: skip


def run(config: Config, *, as_json: bool) -> None:
    entries = [entry(config, app) for app in config.apps.values()]
    if as_json:
        document(entries)
        return
    if not entries:
        say(f"No available apps found in {config.file}.")
        return
    rows = [(x.name, ", ".join(x.short), _remark(x), x.desc) for x in entries]
    table(("APP", "SHORT", "", "DESCRIPTION"), rows)
    say(f"\nfrom {config.file}; more on one: viscript help APP")
    for broken in [x for x in entries if x.problem]:
        say(f"warning: {broken.problem}")


def _remark(entry: Entry) -> str:
    if entry.problem:
        return "cannot be started"
    return "autostart" if entry.autostart else ""


def help_app(config: Config, name: str, *, as_json: bool) -> None:
    from viscript import catalog

    found = entry(config, catalog.find(config, name))
    if as_json:
        document(found)
        return
    say(f"{found.name}: {found.desc}")
    say(f"runs: {' '.join((found.path, *found.default_args, *found.args))} [ARGS...]")
    say(f"\n{found.help.rstrip()}" if found.help else "There is no help text for it.")
    if found.problem:
        say(f"warning: {found.problem}")
