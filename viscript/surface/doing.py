"""Arguments of the commands that change what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from viscript.surface.arguments import HostName, daemon_of
from viscript.surface.orders import Given, order

SELECTED = "Ids, names, web*, @group, host:app, state=failed, and, or, not."
AppName = Annotated[str, typer.Argument(metavar="APP", help="Or a selector, quoted.")]
Selected = Annotated[list[str], typer.Argument(metavar="ID|APP|SELECTOR...", help=SELECTED)]


@order("batch")
def start(
    name: AppName,
    args: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Passed on as they are.")
    ] = None,
    *,
    given: Given,
) -> None:
    """Start an app. Everything after APP goes to it, added to its configured arguments."""
    from viscript.commands import start as command

    with given.client() as daemon:
        command.run(daemon, name, args or [], given.how(command.TIMEOUT))


@order()
def sd(select: Selected, given: Given) -> None:
    """Shut down: over the bus if the app listens there, then by the signals of its configuration."""
    from viscript.commands import sd as command

    with given.client() as daemon:
        command.run(daemon, select, given.how(command.TIMEOUT), given.batch)


@order()
def restart(select: Selected, given: Given) -> None:
    """End and start again, with the same id; --batch 1 does it one by one, each until it is ready."""
    from viscript.commands import restart as command

    with given.client() as daemon:
        command.run(daemon, select, given.how(command.TIMEOUT), given.batch)


@order()
def reload(select: Selected, given: Given) -> None:
    """Send the signal that the configuration names as `reload`."""
    from viscript.commands import reload as command

    with given.client() as daemon:
        command.run(daemon, select, given.how(command.TIMEOUT), given.batch)


@order()
def kill(
    select: Selected,
    *,
    signal: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="Name or number.")
    ] = "TERM",
    given: Given,
) -> None:
    """Send a signal to all processes of an app. What has ended by it is started again if it is to be."""
    from viscript.commands import kill as command

    number = command.number(signal)
    with given.client() as daemon:
        command.run(daemon, select, number, given.how(command.TIMEOUT), given.batch)


@order("yes", "batch")
def scale(
    name: Annotated[str, typer.Argument(metavar="APP", help="See: viscript apps.")],
    count: Annotated[int, typer.Argument(metavar="N", min=0, max=1000, help="Instances.")],
    *,
    given: Given,
) -> None:
    """Run so many instances of an app: app:0, app:1 and so on."""
    from viscript.commands import scale as command

    with given.client() as daemon:
        command.run(daemon, name, count, given.how(command.TIMEOUT))


@order("dry_run", "yes", "batch")
def run(
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND [ARGS]...", help="Passed on as they are.")
    ],
    *,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="Else that of the program.")
    ] = None,
    cwd: Annotated[
        str | None,
        typer.Option(
            "--cwd", metavar="DIR", help="Else the present folder; with --host that of its file."
        ),
    ] = None,
    host: HostName = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it runs.")] = False,
    given: Given,
) -> int:
    """Run a command as an app: shows its output and ends with its exit code; Ctrl-C shuts it down."""
    from pathlib import Path

    from viscript import options
    from viscript.commands import run as command
    from viscript.commands import start

    folder = Path(cwd or ".")
    request = command.request_for(name, words, folder if host else folder.absolute())
    with daemon_of(host, given.home) as daemon:
        if detach or given.as_json or not given.wait:
            command.detached(daemon, request, given.how(start.TIMEOUT))
            return 0
        return command.foreground(options.home(given.home), daemon, request)


@order("wait", "dry_run", "yes", "batch")
def wait(
    select: Selected,
    *,
    until: Annotated[
        str, typer.Option("--for", metavar="WHAT", help="ready, ended, or a state.")
    ] = "ready",
    given: Given,
) -> None:
    """Wait until all are ready: 0; 3 when it cannot come about any more, 7 when time is up."""
    from viscript.commands import waiting as command

    command.check(until)
    with given.client() as daemon:
        how = given.how(command.TIMEOUT)
        command.run(daemon, select, until, how.timeout, as_json=how.as_json)
