"""Arguments of the commands that change what runs."""

# ruff: noqa: PLR0913 - typer makes options of parameters

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import as_json, client

if TYPE_CHECKING:
    from viscript.commands.follow import How

SELECTED = "Ids, names, web*, @group, host:app, state=failed, and, or, not."
AppName = Annotated[str, typer.Argument(metavar="APP", help="Or a selector, quoted.")]
Selected = Annotated[list[str], typer.Argument(metavar="ID|APP|SELECTOR...", help=SELECTED)]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="S", min=0.0, help="Wait so many seconds, then exit code 7."),
]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Whether to wait for what comes of it.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only say what is meant.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask when several are meant.")]
BatchOption = Annotated[
    int,
    typer.Option("--batch", metavar="N", min=0, help="N at a time; no more once one has failed."),
]


def how_of(timeout: float | None, usual: float, json: bool, **more: bool) -> How:  # noqa: FBT001
    from viscript.commands.follow import How

    return How(usual if timeout is None else timeout, as_json=as_json(json), **more)


def start(
    name: AppName,
    args: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Passed on as they are.")
    ] = None,
    *,
    timeout: TimeoutOption = None,
    wait: WaitOption = True,
    dry_run: DryOption = False,
    yes: YesOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Start an app. Everything after APP goes to it, added to its configured arguments."""
    from viscript.commands import start as command

    how = how_of(timeout, command.TIMEOUT, json, wait=wait, dry=dry_run, yes=yes)
    with client(home) as daemon:
        command.run(daemon, name, args or [], how)


def sd(
    select: Selected,
    *,
    timeout: TimeoutOption = None,
    wait: WaitOption = True,
    dry_run: DryOption = False,
    yes: YesOption = False,
    batch: BatchOption = 0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Shut down: over the bus if the app listens there, then by the signals of its configuration."""
    from viscript.commands import sd as command

    how = how_of(timeout, command.TIMEOUT, json, wait=wait, dry=dry_run, yes=yes)
    with client(home) as daemon:
        command.run(daemon, select, how, batch)


def restart(
    select: Selected,
    *,
    timeout: TimeoutOption = None,
    wait: WaitOption = True,
    dry_run: DryOption = False,
    yes: YesOption = False,
    batch: BatchOption = 0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """End and start again, with the same id; --batch 1 does it one by one, each until it is ready."""
    from viscript.commands import restart as command

    how = how_of(timeout, command.TIMEOUT, json, wait=wait, dry=dry_run, yes=yes)
    with client(home) as daemon:
        command.run(daemon, select, how, batch)


def reload(
    select: Selected,
    *,
    timeout: TimeoutOption = None,
    wait: WaitOption = True,
    dry_run: DryOption = False,
    yes: YesOption = False,
    batch: BatchOption = 0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Send the signal that the configuration names as `reload`."""
    from viscript.commands import reload as command

    how = how_of(timeout, command.TIMEOUT, json, wait=wait, dry=dry_run, yes=yes)
    with client(home) as daemon:
        command.run(daemon, select, how, batch)


def kill(
    select: Selected,
    *,
    signal: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="Name or number.")
    ] = "TERM",
    timeout: TimeoutOption = None,
    wait: WaitOption = True,
    dry_run: DryOption = False,
    yes: YesOption = False,
    batch: BatchOption = 0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Send a signal to all processes of an app. What has ended by it is started again if it is to be."""
    from viscript.commands import kill as command

    number = command.number(signal)
    how = how_of(timeout, command.TIMEOUT, json, wait=wait, dry=dry_run, yes=yes)
    with client(home) as daemon:
        command.run(daemon, select, number, how, batch)


def scale(
    name: Annotated[str, typer.Argument(metavar="APP", help="See: viscript apps.")],
    count: Annotated[int, typer.Argument(metavar="N", min=0, max=1000, help="Instances.")],
    *,
    timeout: TimeoutOption = None,
    wait: WaitOption = True,
    dry_run: DryOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Run so many instances of an app: app:0, app:1 and so on."""
    from viscript.commands import scale as command

    how = how_of(timeout, command.TIMEOUT, json, wait=wait, dry=dry_run)
    with client(home) as daemon:
        command.run(daemon, name, count, how)


def run(
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND [ARGS]...", help="Passed on as they are.")
    ],
    *,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="Else that of the program.")
    ] = None,
    cwd: Annotated[
        str | None, typer.Option("--cwd", metavar="DIR", help="Else the present folder.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it runs.")] = False,
    timeout: TimeoutOption = None,
    wait: WaitOption = True,
    home: HomeOption = None,
    json: JsonOption = False,
) -> int:
    """Run a command as an app: shows its output and ends with its exit code; Ctrl-C shuts it down."""
    from pathlib import Path

    from viscript import options
    from viscript.commands import run as command
    from viscript.commands import start

    request = command.request_for(name, words, Path(cwd or ".").absolute())
    with client(home) as daemon:
        if detach or as_json(json) or not wait:
            how = how_of(timeout, start.TIMEOUT, json, wait=wait)
            command.detached(daemon, request, how)
            return 0
        return command.foreground(options.home(home), daemon, request)


def wait(
    select: Selected,
    *,
    until: Annotated[
        str, typer.Option("--for", metavar="WHAT", help="ready, ended, or a state.")
    ] = "ready",
    timeout: TimeoutOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Wait until all are ready: 0; 3 when it cannot come about any more, 7 when time is up."""
    from viscript.commands import waiting as command

    command.check(until)
    with client(home) as daemon:
        limit = command.TIMEOUT if timeout is None else timeout
        command.run(daemon, select, until, limit, as_json=as_json(json))
