"""Arguments of the commands that change what runs."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import Targets, as_json, client

AppName = Annotated[str, typer.Argument(metavar="APP", help="See: viscript apps.")]


def start(
    name: AppName,
    args: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Passed on as they are.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Start an app. Everything after APP goes to it, added to its configured arguments."""
    from viscript.commands import start as command

    with client(home) as daemon:
        command.run(daemon, name, args or [], as_json=as_json(json))


def sd(targets: Targets, home: HomeOption = None, json: JsonOption = False) -> None:
    """Shut down: over the bus if the app listens there, then SIGTERM, then SIGKILL."""
    from viscript.commands import sd as command

    with client(home) as daemon:
        command.run(daemon, targets, as_json=as_json(json))
