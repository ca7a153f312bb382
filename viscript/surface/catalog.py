"""Arguments of the commands about what can be started; they need no daemon."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import ConfigOption, as_json, config_file

if TYPE_CHECKING:
    from viscript.config import Config


def apps(config: ConfigOption = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List the apps that can be started."""
    from viscript.commands import apps as command

    command.run(_loaded(config, home), as_json=as_json(json))


def help_(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[APP]", help="See: viscript apps.")] = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Explain an app, or without a name the commands."""
    from viscript.commands import apps as command

    if name is None:
        typer.echo(ctx.find_root().get_help())
        return
    command.help_app(_loaded(config, home), name, as_json=as_json(json))


def _loaded(option: str | None, home: str | None) -> Config:
    """The configuration. What is used without an option is what completion shall know, too."""
    from viscript import config as configuration
    from viscript import snapshot

    place = options.home(home)
    found = configuration.load(config_file(option, place))
    if option is None:
        snapshot.keep_apps(place, found)
    return found
