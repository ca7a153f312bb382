"""Arguments of the commands about what apps print."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import as_json


def logs(
    target: Annotated[str, typer.Argument(metavar="ID|APP", help="Also: broker, daemon.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last.")] = 50,
    raw: Annotated[bool, typer.Option("--raw", help="Leave control sequences in.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show what an app printed."""
    from viscript.commands import logs as command

    file = command.find(options.home(home), target)
    command.run(file, lines=lines, follow=follow, raw=raw, as_json=as_json(json))
