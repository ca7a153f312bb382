"""The `viscript` command: what stands before a command, and errors as messages with exit codes."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

import gc
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from viscript import options
from viscript.errors import BadUsage, ViscriptError
from viscript.options import HomeOption, JsonOption
from viscript.surface.group import Commands
from viscript.surface.registry import VERBATIM

if TYPE_CHECKING:
    from typer._click.exceptions import UsageError

EXIT_CODES = """Exit codes: 0 done, 1 a target failed, 2 usage, 3 status: not running, 4 permission or key,
5 unknown app or id, 6 daemon unreachable, 7 timed out with unknown result, 8 configuration, 9 conflict,
10 some hosts unreachable, the rest done."""

app = typer.Typer(
    name="viscript", cls=Commands, add_completion=False, no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=f"Runs and controls programs over an encrypted message bus.\n\n{EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


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


def _parse(arguments: list[str]) -> int:
    """Carry it out; the exit code that the command, or Ctrl-C, has chosen."""
    if "_VISCRIPT_COMPLETE" in os.environ:  # names that only a broker knows: viscript.completing
        from typer._completion_classes import completion_init

        completion_init()
    try:
        code = app(arguments, standalone_mode=False, prog_name="viscript")
    except SystemExit as end:  # what typer makes of a broken pipe
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    return code if isinstance(code, int) else 0


def wants_json(arguments: list[str]) -> bool:
    """Whether --json is ours: after `start APP` it is the app's."""
    before = _options(arguments)
    command, rest = arguments[len(before) : len(before) + 1], arguments[len(before) + 1 :]
    ours = _options(rest) if VERBATIM.intersection(command) else rest
    return "--json" in before or "--json" in ours


def _options(words: list[str]) -> list[str]:
    """The options that `words` begin with, and their values."""
    found: list[str] = []
    for word in words:
        valued = bool(found) and found[-1] in _VALUED
        if word == "--" or (not word.startswith("-") and not valued):
            break
        found.append(word)
    return found


_VALUED = frozenset({"--home", "--timeout", "--name", "--cwd"})  # before a command, and of VERBATIM


def complain(error: Exception, name: str, code: int, *, as_json: bool) -> int:
    """One message on standard error, for people or as one JSON object."""
    if as_json:
        import json

        shown = {"error": name, "message": str(error), "exit_code": code}
        for more in ("job", "host"):  # what is not known in time can be asked for later
            if found := getattr(error, more, None):
                shown[more] = found
        text = json.dumps(shown)
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


def _for_prompt(arguments: list[str]) -> tuple[bool, str | None]:
    """Whether nothing but a home was named on a terminal, and which."""
    home = None
    match arguments:
        case []:
            pass
        case ["--home", named] if named:
            home = named
        case [word] if word.startswith("--home=") and word != "--home=":
            home = word.removeprefix("--home=")
        case _:
            return False, None
    return os.isatty(0) and os.isatty(1), home


def main() -> None:
    gc.set_threshold(20_000)  # what is imported is no garbage, nor is most that a command makes
    if isinstance(sys.stdout, io.TextIOWrapper):  # as the arguments, whatever the locale says
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    wanted, home = _for_prompt(sys.argv[1:])
    if wanted:
        from viscript.shell import session

        sys.exit(session.start(options.home(home), run))
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
