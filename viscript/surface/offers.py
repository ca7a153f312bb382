"""Arguments of `viscript find`: what apps offer in the mesh."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption


def find(
    kind: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="Such as socks; else everything.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only with this label; may be repeated."),
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Find what apps offer: the node's key, the port there, labels. Exit code 5: nothing is offered."""
    from viscript.commands import offers as command

    options.given.take(home, json=json)
    command.run(kind, label or [])
