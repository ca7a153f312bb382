"""`viscript config check|show|schema`: what a file says and what is wrong with it. Needs no daemon."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from viscript.errors import BadConfig, Failed
from viscript.output import document, say

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.client import Client
    from viscript.config import Config
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.config.look"
_PLACE = re.compile(r"(.*?):(\d+)(?::(\d+))?: (.*)", re.DOTALL)


class Problem(Struct):
    """What is wrong, and where; line and column are null for the file as a whole."""

    file: str
    line: int | None
    column: int | None
    message: str

    @classmethod
    def of(cls, text: str, file: Path) -> Problem:
        found = _PLACE.fullmatch(text)
        if found is None:
            return cls(str(file), None, None, text.removeprefix(f"{file}: "))
        return cls(found[1], int(found[2]), int(found[3]) if found[3] else None, found[4])

    @property
    def text(self) -> str:
        """As it was said."""
        place = [self.file, *(str(x) for x in (self.line, self.column) if x is not None)]
        return f"{':'.join(place)}: {self.message}"


class Checked(Struct):
    """The document of `viscript config check --json`."""

    file: str
    ok: bool
    apps: list[str]
    errors: list[Problem]  # it does not load
    warnings: list[Problem]  # it loads, but this cannot be started on this machine as things are


class Request(Struct):
    """What the file of the host says: all of it, or of the apps called so; or only what is wrong with it."""

    what: Literal["check", "show"]
    names: list[str] = []


class Reply(Struct):
    file: str
    checked: Checked | None = None
    tree: Any = None


async def handle(launcher: Launcher, request: Request, _caller: Caller) -> Reply:
    """Reads files, in a thread."""
    import asyncio

    file = launcher.config.file
    if request.what == "check":
        return Reply(str(file), checked=await asyncio.to_thread(_look, file))
    return Reply(str(file), tree=await asyncio.to_thread(_tree, file, request.names))


def check(file: Path, *, strict: bool, as_json: bool) -> None:
    """`BadConfig` when it does not load; with `strict` also when an app could not be started here."""
    _tell(_look(file), strict=strict, as_json=as_json)


def check_there(client: Client, *, strict: bool, as_json: bool) -> None:
    """The file that the daemon asked uses; where apps cannot be started is said of its host."""
    reply = client.ask(SUBJECT, Request("check"), Reply)
    if reply.checked is None:
        raise Failed(f"{client.host}: the answer is not understood")
    _tell(reply.checked, strict=strict, as_json=as_json)


def _look(file: Path) -> Checked:
    from viscript import config

    checked = Checked(str(file), ok=True, apps=[], errors=[], warnings=[])
    try:
        found = config.load(file)
    except config.BadFile as error:
        checked.errors = [Problem.of(text, file) for text in error.problems]
    else:
        checked.apps = list(found.apps)
        checked.warnings = [Problem.of(text, file) for text in _unstartable(found)]
    return checked


def _tell(checked: Checked, *, strict: bool, as_json: bool) -> None:
    checked.ok = not checked.errors and not (strict and checked.warnings)
    if as_json:
        document(checked)
    else:
        for problem in checked.errors:
            say(problem.text)
        for problem in checked.warnings:
            say(f"warning: {problem.text}")
        if checked.ok:
            count = len(checked.apps)
            say(f"{checked.file}: well, {count} app{'s' if count != 1 else ''}")
    if not checked.ok:
        count = len(checked.errors) or len(checked.warnings)
        raise BadConfig(f"{checked.file}: {count} problem{'s' if count != 1 else ''}")


def _unstartable(found: Config) -> list[str]:
    from viscript import startable

    search = os.environ.get("PATH", os.defpath)
    return [text for app in found.apps.values() for text in startable.problems(found, app, search)]


def show(file: Path, names: list[str], *, as_json: bool) -> None:
    """The whole file with every value that is not written; what is printed loads as the same."""
    _print(str(file), _tree(file, names), as_json=as_json)


def show_there(client: Client, names: list[str], *, as_json: bool) -> None:
    """The file that the daemon asked uses, as it is on its disk now."""
    reply = client.ask(SUBJECT, Request("show", names), Reply)
    _print(reply.file, reply.tree, as_json=as_json)


def _tree(file: Path, names: list[str]) -> object:
    from msgspec.structs import replace

    from viscript import catalog, config
    from viscript.config import shown

    found = config.load(file)
    if names:
        chosen = [catalog.find(found, name) for name in names]
        found = replace(found, apps={app.name: app for app in chosen})
    return shown.file(found)


def _print(file: str, tree: object, *, as_json: bool) -> None:
    if as_json:
        document(tree)
        return
    say(f"# {file}, with every value that is not written there")
    say(_yaml(tree))


def _yaml(tree: object) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Texts of several lines as people write them."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100).rstrip()


def schema() -> None:
    """The JSON Schema, for editors."""
    from viscript import config

    say(config.schema().read_text(encoding="utf-8").rstrip())
