"""`viscript show APP`: every value of its entry, and where each comes from. Needs no daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from viscript.output import document, say, table

if TYPE_CHECKING:
    from viscript.config import Config


class Value(Struct):
    """One value: `source` is file:line or "default"."""

    key: str
    value: Any
    source: str


class Shown(Struct):
    """One app: the document of `viscript show --json`."""

    app: str
    file: str
    command: tuple[str, ...] | None  # what is executed; null when it cannot be, as `problem` says
    cwd: str | None  # null: a folder of its own in the home
    problem: str | None
    values: list[Value]


def run(config: Config, name: str, *, as_json: bool) -> None:
    from viscript import catalog
    from viscript.config import shown
    from viscript.errors import BadConfig

    app = catalog.find(config, name)
    command, problem = None, None
    try:
        command = catalog.command(config, app, (), os.environ.get("PATH", os.defpath))
    except BadConfig as error:
        problem = str(error)
    rows = shown.rows(app)
    if as_json:
        values = [Value(row.key, row.value, row.origin) for row in rows]
        argv, cwd = (command.argv, command.cwd) if command else (None, None)
        document(Shown(app.name, str(config.file), argv, cwd, problem, values))
        return
    say(f"{app.name}{f': {app.desc}' if app.desc else ''}")
    if command is not None:
        say(f"runs {' '.join(command.argv)}")
        say(f"in   {command.cwd or 'a folder of its own in the home'}")
    say()
    folder = f"{config.folder}/"
    table(
        ("KEY", "VALUE", "FROM"),
        [(row.key, _short(shown.text(row.value)), row.origin.removeprefix(folder)) for row in rows],
    )
    if problem:
        say(f"\nwarning: {problem}")


def _short(text: str) -> str:
    """The first line of long texts: help has a command of its own."""
    first, _, rest = text.partition("\n")
    return f"{first[:69]}…" if rest or len(first) > 70 else first
