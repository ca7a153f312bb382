"""`viscript config check|show|schema`: what a file says and what is wrong with it. Needs no daemon."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.errors import BadConfig
from viscript.output import document, say

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.config import Config

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


class Checked(Struct):
    """The document of `viscript config check --json`."""

    file: str
    ok: bool
    apps: list[str]
    errors: list[Problem]  # it does not load
    warnings: list[Problem]  # it loads, but this cannot be started on this machine as things are


def check(file: Path, *, strict: bool, as_json: bool) -> None:
    """`BadConfig` when it does not load; with `strict` also when an app could not be started here."""
    from viscript import config

    errors: tuple[str, ...] = ()
    warnings: list[str] = []
    names: list[str] = []
    try:
        found = config.load(file)
    except config.BadFile as error:
        errors = error.problems
    else:
        names, warnings = list(found.apps), _unstartable(found)
    ok = not errors and not (strict and warnings)
    if as_json:
        document(
            Checked(
                str(file), ok, names, [Problem.of(text, file) for text in errors],
                [Problem.of(text, file) for text in warnings],
            )
        )  # fmt: skip
    else:
        for text in errors:
            say(text)
        for text in warnings:
            say(f"warning: {text}")
        if ok:
            say(f"{file}: well, {len(names)} app{'s' if len(names) != 1 else ''}")
    if not ok:
        count = len(errors) or len(warnings)
        raise BadConfig(f"{file}: {count} problem{'s' if count != 1 else ''}")


def _unstartable(found: Config) -> list[str]:
    from viscript import startable

    search = os.environ.get("PATH", os.defpath)
    return [text for app in found.apps.values() for text in startable.problems(found, app, search)]


def show(file: Path, names: list[str], *, as_json: bool) -> None:
    """The whole file with every value that is not written; what is printed loads as the same."""
    from dataclasses import replace

    from viscript import catalog, config
    from viscript.config import shown

    found = config.load(file)
    if names:
        chosen = [catalog.find(found, name) for name in names]
        found = replace(found, apps={app.name: app for app in chosen})
    tree = shown.file(found)
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
