"""Arguments of `viscript daemon`."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import as_json, config_file

app = typer.Typer(
    help="The daemon alone: apps and broker go on whatever becomes of it.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip


@app.command()
def restart(home: HomeOption = None, json: JsonOption = False) -> None:
    """Upgrade it in place: it becomes what is installed now and takes over all that runs."""
    from viscript.commands import daemon as command

    place = options.home(home)
    command.restart(place, config_file(None, place), as_json=as_json(json))


@app.command()
def stop(home: HomeOption = None, json: JsonOption = False) -> None:
    """End it; the next `viscript up` takes over what runs."""
    from viscript.commands import daemon as command

    command.stop(options.home(home), as_json=as_json(json))


@app.command()
def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show daemon and broker; exit code 3 when they do not run."""
    from viscript.surface import seeing

    seeing.status(home=home, json=json)


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last.")] = 50,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show what the daemon printed."""
    from viscript.surface import logs as surface

    surface.logs(["daemon"], follow=follow, lines=lines, home=home, json=json)
