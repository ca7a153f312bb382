"""Arguments of `up` and `down`."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import ConfigOption, as_json, config_file

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.home import Home


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all is up.")] = False,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Start daemon, broker and the apps marked autostart; Ctrl-C stops them unless detached."""
    from viscript.commands import up as command

    place = options.home(home)
    file = config_file(config, place)
    command.run(place, file, serve, detach=detach, as_json=as_json(json))


def serve(home: Home, config: Path, events: int) -> int:
    """Be the daemon of a home."""
    from viscript.nursery import nursery

    nursery.warm_up()  # while the rest is imported
    from viscript import daemon
    from viscript.daemonoptions import Options

    gc.set_threshold(700)  # as it is by itself: what lives long must not let its garbage grow
    return daemon.serve(Options(home, config, events, down=False))


def down(home: HomeOption = None, json: JsonOption = False) -> None:
    """End everything: apps, broker, daemon. Also what a killed daemon left running."""
    from viscript.commands import down as command

    place = options.home(home)
    command.run(place, config_file(None, place), as_json=as_json(json))
