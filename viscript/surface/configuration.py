"""Arguments of the commands about the configuration."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import ConfigOption, HostName, as_json, config_file, daemon_of
from viscript.surface.orders import Given, order

AppName = Annotated[str, typer.Argument(metavar="APP", help="See: viscript apps.")]
FileName = Annotated[
    str | None, typer.Argument(metavar="[FILE]", help="Else the one that would be used.")
]

config = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Check the configuration, see what a change would do, and take it over.",
)  # fmt: skip


def show(
    name: AppName, config: ConfigOption = None, home: HomeOption = None, json: JsonOption = False
) -> None:
    """Every value of an app's entry, and where it comes from: file and line, or default."""
    from viscript import config as configuration
    from viscript.commands import show as command

    file = config_file(config, options.home(home))
    command.run(configuration.load(file), name, as_json=as_json(json))


@config.command()
def check(
    file: FileName = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also fail if an app could not be started here.")
    ] = False,
    host: HostName = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Say all that is wrong, with file, line and column; exit code 8 if anything is."""
    from viscript.commands import config as command

    if host:
        _own_file(host, file)
        with daemon_of(host, home) as daemon:
            command.check_there(daemon, strict=strict, as_json=as_json(json))
    else:
        command.check(_file(file, home), strict=strict, as_json=as_json(json))


@config.command()
def plan(
    file: FileName = None,
    *,
    host: HostName = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Say what taking over the changed file would do: what changes, what restarts, and why."""
    from viscript.commands import plan as command

    if host:
        _own_file(host, file)
    path = str(Path(file).expanduser().absolute()) if file else ""
    with daemon_of(host, home) as daemon:
        command.run(daemon, path, as_json=as_json(json))


@config.command()
@order()
def apply(*, host: HostName = None, given: Given) -> None:
    """Take over the changed file; only what the change concerns is touched."""
    from viscript.commands import apply as command

    with daemon_of(host, given.home) as daemon:
        command.run(daemon, given.how(command.TIMEOUT), given.batch)


@config.command("show")
def show_all(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[APP]...", help="Only these apps.")
    ] = None,
    config: ConfigOption = None,
    host: HostName = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Print the whole file with every value that is not written in it."""
    from viscript.commands import config as command

    if host:
        _own_file(host, config)
        with daemon_of(host, home) as daemon:
            command.show_there(daemon, names or [], as_json=as_json(json))
    else:
        command.show(_file(config, home), names or [], as_json=as_json(json))


@config.command()
def schema(home: HomeOption = None, json: JsonOption = False) -> None:  # noqa: ARG001 - as all take
    """Print the JSON Schema of the file, for editors."""
    from viscript.commands import config as command

    command.schema()


def _own_file(host: str, file: str | None) -> None:
    """Of another host only the file is looked at that its daemon uses."""
    from viscript.errors import BadUsage

    if file is not None:
        raise BadUsage(
            f"with --host it is the file that the daemon of {host} uses; leave {file} out"
        )


def _file(option: str | None, home: str | None) -> Path:
    return config_file(option, options.home(home))
