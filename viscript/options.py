"""Options that every command takes, wherever they stand, and what follows from them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from viscript.home import Home

HomeOption = Annotated[
    str | None, typer.Option("--home", metavar="DIR", help="Which instance; else $VISCRIPT_HOME.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


class Given:
    """What stood before the command, or between `bus` and its command."""

    def __init__(self, home: str | None = None, *, json: bool = False) -> None:
        self.home = home
        self.json = json
        self.context: str | None = None

    def take(self, home: str | None, *, json: bool, context: str | None = None) -> None:
        """Later ones win; what is not given again stays."""
        self.home = home or self.home
        self.json = json or self.json
        self.context = context or self.context


given = Given()


def home(option: str | None = None) -> Home:
    from viscript import home as homes

    return homes.find(option or given.home, os.environ)


def as_json(*, option: bool = False) -> bool:
    return option or given.json
