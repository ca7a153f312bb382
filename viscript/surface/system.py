"""Arguments of the commands about this installation: completion and doctor."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

import os
from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import ConfigOption, as_json, config_file

completion = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Completion by the tab key, from what was there last: nothing is asked over the bus.",
)  # fmt: skip


@completion.command()
def bash(home: HomeOption = None, json: JsonOption = False) -> None:  # noqa: ARG001 - as all take
    """Print the script for bash."""
    _show("bash")


@completion.command()
def zsh(home: HomeOption = None, json: JsonOption = False) -> None:  # noqa: ARG001
    """Print the script for zsh."""
    _show("zsh")


@completion.command()
def fish(home: HomeOption = None, json: JsonOption = False) -> None:  # noqa: ARG001
    """Print the script for fish."""
    _show("fish")


@completion.command()
def install(
    shell: Annotated[
        str | None, typer.Argument(metavar="[bash|zsh|fish]", help="Else that of $SHELL.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Put the script where the shell finds it."""
    from viscript.commands import completion as command
    from viscript.surface import tree

    options.given.take(home, json=json)
    command.install(shell, tree.write(os.environ), as_json=as_json(json))


def doctor(config: ConfigOption = None, home: HomeOption = None, json: JsonOption = False) -> int:
    """What is wrong here, and what to do. Exit code 0: all is well, 1: warnings, 2: something is broken."""
    from viscript.commands import doctor as command

    place = options.home(home)
    return command.run(place, lambda: config_file(config, place), as_json=as_json(json))


def _show(shell: str) -> None:
    """What it needs is made now, so that the first completion is as fast as all."""
    from viscript.commands import completion as command
    from viscript.surface import tree

    command.show(shell, tree.write(os.environ))
