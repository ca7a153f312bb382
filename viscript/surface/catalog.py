"""Arguments of the commands about what can be started; they need no daemon."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import ConfigOption, as_json, config_file


def apps(config: ConfigOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List the apps that can be started."""
    from viscript import config as configuration
    from viscript.commands import apps as command

    file = config_file(config, options.home(home))
    command.run(configuration.load(file), as_json=as_json(json))


def help_(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[APP]", help="See: viscript apps.")] = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Explain an app, or without a name the commands."""
    from viscript import config as configuration
    from viscript.commands import apps as command

    if name is None:
        typer.echo(ctx.find_root().get_help())
        return
    file = config_file(config, options.home(home))
    command.help_app(configuration.load(file), name, as_json=as_json(json))
