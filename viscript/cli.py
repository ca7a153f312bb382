"""The `viscript` command: arguments, and errors as messages with exit codes. Imports late, to start fast."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from viscript import options
from viscript.commands import bus
from viscript.errors import BadUsage, ViscriptError
from viscript.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from typer._click.exceptions import UsageError

    from viscript.home import Home

EXIT_CODES = """Exit codes: 0 done, 1 a target failed, 2 usage, 3 status: not running, 4 permission or key,
5 unknown app or id, 6 daemon unreachable, 7 timed out with unknown result, 8 configuration, 9 conflict."""

app = typer.Typer(
    name="viscript", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help=f"Runs and controls programs over an encrypted message bus.\n\n{EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Configuration of the apps.")
]
Target = Annotated[str, typer.Argument(metavar="ID|APP", help="Id, or an app that runs once.")]
Targets = Annotated[list[str], typer.Argument(metavar="ID|APP...", help="Ids or app names.")]
AppName = Annotated[str, typer.Argument(metavar="APP", help="See: viscript apps.")]


def _version(*, wanted: bool) -> None:
    if wanted:
        from bus.version import VERSION

        typer.echo(f"viscript {VERSION}")
        raise typer.Exit


@app.callback()
def before(
    home: HomeOption = None,
    as_json: JsonOption = False,
    _version_asked: Annotated[
        bool,
        typer.Option("--version", callback=lambda wanted: _version(wanted=wanted), is_eager=True),
    ] = False,
) -> None:
    """Options before the command hold for it."""
    options.given = options.Given(home, json=as_json)


def _json(option: bool) -> bool:  # noqa: FBT001 - passes an option on
    return options.as_json(option=option)


def _config(option: str | None, home: Home) -> Path:
    """The file named, else what the daemon uses that runs or was killed, else as `config.find` says."""
    from viscript import config
    from viscript.client import last_config

    named = option or os.environ.get("VISCRIPT_CONFIG")
    return config.find(named or last_config(home), {}, home.config)


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all is up.")] = False,
    config: ConfigOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start daemon, broker and the apps marked autostart; Ctrl-C stops them unless detached."""
    from viscript.commands import up as command

    place = options.home(home)
    command.run(place, _config(config, place), detach=detach, as_json=_json(as_json))


@app.command()
def down(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """End everything: apps, broker, daemon. Also what a killed daemon left running."""
    from viscript.commands import down as command

    place = options.home(home)
    command.run(place, _config(None, place), as_json=_json(as_json))


@app.command()
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show daemon and broker; exit code 3 when they do not run."""
    from viscript.client import Client
    from viscript.commands import status as command
    from viscript.errors import NoDaemon

    place = options.home(home)
    try:
        with Client(place) as client:
            command.run(place, client, None, as_json=_json(as_json))
    except NoDaemon as problem:
        command.run(place, None, problem, as_json=_json(as_json))


@app.command()
def apps(config: ConfigOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the apps that can be started."""
    from viscript import config as configuration
    from viscript.commands import apps as command

    command.run(configuration.load(_config(config, options.home(home))), as_json=_json(as_json))


@app.command("help")
def help_(
    name: Annotated[str | None, typer.Argument(metavar="[APP]", help="See: viscript apps.")] = None,
    config: ConfigOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain an app, or without a name the commands."""
    from viscript import config as configuration
    from viscript.commands import apps as command

    if name is None:
        _parse(["--help"])
        return
    file = _config(config, options.home(home))
    command.help_app(configuration.load(file), name, as_json=_json(as_json))


def start(
    name: AppName,
    args: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Passed on as they are.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start an app. Everything after APP goes to it, added to its configured arguments."""
    from viscript.client import Client
    from viscript.commands import start as command

    with Client(options.home(home)) as client:
        command.run(client, name, args or [], as_json=_json(as_json))


def list_(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="The last 100 ended too.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what runs, and the ten that ended last since `up`."""
    from viscript.client import Client
    from viscript.commands import list as command

    with Client(options.home(home)) as client:
        command.run(client, everything=everything, as_json=_json(as_json))


@app.command()
def ping(target: Target, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Measure the round trip over the bus to an app."""
    from viscript.client import Client
    from viscript.commands import ping as command

    with Client(options.home(home)) as client:
        command.run(client, target, as_json=_json(as_json))


def ru(targets: Targets, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Resource usage: CPU, memory, threads, open files, bytes on the bus."""
    from viscript.client import Client
    from viscript.commands import ru as command

    with Client(options.home(home)) as client:
        command.run(client, targets, as_json=_json(as_json))


def sd(targets: Targets, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Shut down: over the bus if the app listens there, then SIGTERM, then SIGKILL."""
    from viscript.client import Client
    from viscript.commands import sd as command

    with Client(options.home(home)) as client:
        command.run(client, targets, as_json=_json(as_json))


@app.command()
def logs(
    target: Annotated[str, typer.Argument(metavar="ID|APP", help="Also: broker, daemon.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last.")] = 50,
    raw: Annotated[bool, typer.Option("--raw", help="Leave control sequences in.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an app printed."""
    from viscript.commands import logs as command

    file = command.find(options.home(home), target)
    command.run(file, lines=lines, follow=follow, raw=raw, as_json=_json(as_json))


_VERBATIM = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_NAMES: tuple[tuple[Callable[..., None], tuple[str, ...], dict[str, Any]], ...] = (
    (start, ("start", "s"), _VERBATIM),
    (list_, ("list", "la"), {}),
    (ru, ("ru", "res_usage"), {}),
    (sd, ("sd", "shutdown"), {}),
)
for _function, _names, _settings in _NAMES:
    for _position, _name in enumerate(_names):
        app.command(_name, hidden=_position > 0 and len(_name) > 2, context_settings=_settings)(
            _function
        )


app.add_typer(bus.app, name="bus", cls=bus.Verbs)


def _parse(arguments: list[str]) -> int:
    """Carry it out; the exit code that the command, or Ctrl-C, has chosen."""
    try:
        code = app(arguments, standalone_mode=False, prog_name="viscript")
    except SystemExit as end:  # what typer makes of a broken pipe
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    return code if isinstance(code, int) else 0


def wants_json(arguments: list[str]) -> bool:
    """Whether --json is ours: after `start APP` it is the app's."""
    words = iter(arguments)
    for word in words:
        if word == "--json":
            return True
        if word in {"start", "s"}:
            return "--json" in _until_app(list(words))
    return False


def _until_app(words: list[str]) -> list[str]:
    ours: list[str] = []
    for word in words:
        valued = bool(ours) and ours[-1] == "--home"
        if not word.startswith("-") and not valued:
            break
        ours.append(word)
    return ours


def complain(error: Exception, name: str, code: int, *, as_json: bool) -> int:
    """One message on standard error, for people or as one JSON object."""
    if as_json:
        import json

        text = json.dumps({"error": name, "message": str(error), "exit_code": code})
    else:
        from viscript.words import clean

        text = f"error: {clean(str(error))}"
    with suppress(OSError):  # nobody can be told
        print(text, file=sys.stderr)  # noqa: T201
    return code


def _decoded(arguments: list[str]) -> list[str]:
    """The arguments as UTF-8, whatever the locale says; `BadUsage` for what is not."""
    words = []
    for argument in arguments:
        given = os.fsencode(argument)
        try:
            words.append(given.decode())
        except UnicodeDecodeError:
            raise BadUsage(f"an argument is not UTF-8: {given!r} (see: viscript --help)") from None
    return words


def _not_written(error: OSError | UnicodeEncodeError, *, as_json: bool) -> int:
    """What the system refused: mostly standard output."""
    if isinstance(error, UnicodeEncodeError):
        problem = f"{error.object!r} is not UTF-8 or not of this locale; try: LC_ALL=C.UTF-8"
        return complain(Exception(problem), "usage", 2, as_json=as_json)
    if error.filename is None:  # what is left for it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # `| head`
        return 141
    problem = f"{error.filename or 'standard output'}: {error.strerror or error}"
    return complain(Exception(problem), "failed", 1, as_json=as_json)


def _misused(error: UsageError, *, as_json: bool) -> int:
    """A command line that cannot be meant; one that is none yet shows the help."""
    from typer._click.exceptions import NoArgsIsHelpError

    where = error.ctx.command_path if error.ctx else "viscript"
    problem = f"{error.format_message()} (see: {where} --help)"
    if isinstance(error, NoArgsIsHelpError):
        if not as_json:
            print(error.format_message(), file=sys.stderr)  # noqa: T201
            return 2
        problem = f"a command is missing (see: {where} --help)"
    return complain(Exception(problem), "usage", 2, as_json=as_json)


def run(arguments: list[str]) -> int:
    """Carry out a command line; returns the exit code."""
    from typer._click.exceptions import UsageError

    as_json = wants_json(arguments)
    try:
        code = _parse(_decoded(arguments))
        sys.stdout.flush()
    except ViscriptError as error:
        return complain(error, error.name, error.exit_code, as_json=as_json)
    except UsageError as error:
        return _misused(error, as_json=as_json)
    except typer.Exit as end:
        return int(end.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (OSError, UnicodeEncodeError) as error:
        return _not_written(error, as_json=as_json)
    return code


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # as the arguments, whatever the locale says
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
