"""Arguments of the commands that show what runs."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import Target, as_json, client

Everything = Annotated[
    list[str] | None, typer.Argument(metavar="[ID|APP]...", help="Ids or app names; else all.")
]


def list_(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="The last 100 ended too.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List what runs, and the ten that ended last since `up`."""
    from viscript.commands import list as command

    with client(home) as daemon:
        command.run(daemon, everything=everything, as_json=as_json(json))


def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show daemon and broker; exit code 3 when they do not run."""
    from viscript.commands import status as command
    from viscript.errors import NoDaemon

    place = options.home(home)
    try:
        with client(home) as daemon:
            command.run(place, daemon, None, as_json=as_json(json))
    except NoDaemon as problem:
        command.run(place, None, problem, as_json=as_json(json))


def ping(target: Target, home: HomeOption = None, json: JsonOption = False) -> None:
    """Measure the round trip over the bus to an app."""
    from viscript.commands import ping as command

    with client(home) as daemon:
        command.run(daemon, target, as_json=as_json(json))


def ru(targets: Everything = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Resource usage of what is named, or of all: CPU, memory, threads, open files, bytes on the bus."""
    from viscript.commands import ru as command

    with client(home) as daemon:
        command.run(daemon, targets or [], as_json=as_json(json))
