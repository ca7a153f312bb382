"""Arguments of the commands that show what runs."""

# ruff: noqa: FBT002 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import Targets, as_json, client

Everything = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SELECT]...", help="Ids, names, web*, @group, state=…; else all."),
]


def list_(
    targets: Everything = None,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="The last 100 ended too.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List what runs, and the ten that ended last since `up`."""
    from viscript.commands import list as command

    with client(home) as daemon:
        run = command.run
        if daemon.known is not None:
            from viscript.commands import list_all

            run = list_all.run
        run(daemon, targets or [], everything=everything, as_json=as_json(json))


def status(targets: Everything = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Daemon and broker, or what is named in full; exit code 3 when something of it does not run."""
    from viscript.commands import status as command
    from viscript.errors import NoDaemon

    if targets:
        with client(home) as daemon:
            command.run_apps(daemon, targets, as_json=as_json(json))
        return
    place = options.home(home)
    try:
        with client(home) as daemon:
            command.run(place, daemon, None, as_json=as_json(json))
    except NoDaemon as problem:
        command.run(place, None, problem, as_json=as_json(json))


def ping(
    targets: Everything = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.05, max=30, help="Seconds for each answer.")
    ] = 2.0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """How fast keeper, event loop and probe of what is named, or of all, answer."""
    from viscript.commands import ping as command

    with client(home) as daemon:
        command.run(daemon, targets or [], timeout=timeout, as_json=as_json(json))


def ru(targets: Everything = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """Resource usage of what is named, or of all: CPU, memory, threads, open files, bytes on the bus."""
    from viscript.commands import ru as command

    with client(home) as daemon:
        command.run(daemon, targets or [], as_json=as_json(json))


def top(
    targets: Everything = None,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.25, max=3600, help="Seconds between looks.")
    ] = 2.0,
    sort: Annotated[
        str, typer.Option("--sort", help="cpu, mem, threads, files, bus, id or app.")
    ] = "cpu",
    once: Annotated[bool, typer.Option("--once", help="Print one table and end.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """A live table of what everything uses; q ends it, h shows the keys. Once if it is no terminal."""
    from viscript.commands import top as command

    asked = command.Asked(targets or [], interval, sort)
    command.run(options.home(home), asked, once=once, as_json=as_json(json))


def events(
    targets: Everything = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, max=500, help="How many of the last.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What happened last (20); with -f first how it is now, then what happens, without gaps."""
    from viscript.commands import events as command

    if follow:
        command.run_on(options.home(home), targets or [], newest=lines or 0, as_json=as_json(json))
        return
    with client(home) as daemon:
        newest = 20 if lines is None else lines
        command.run(daemon, targets or [], newest=newest, as_json=as_json(json))


def history(
    targets: Everything = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=500, help="How many of the last.")
    ] = 50,
    since: Annotated[
        str | None, typer.Option("--since", metavar="AGE", help="As 10m, 2h, 7d: not older.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What happened to what is named, or to all, also before the daemon was started last."""
    import time

    from viscript.commands import history as command

    begin = 0.0 if since is None else time.time() - command.age(since)
    with client(home) as daemon:
        command.run(daemon, targets or [], limit=lines, since=begin, as_json=as_json(json))


def why(
    targets: Targets,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=200, help="How many of its last lines.")
    ] = 20,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """What an app waits for or why it failed, when it is tried next, and what it printed last."""
    from viscript.commands import why as command

    with client(home) as daemon:
        command.run(daemon, targets, lines=lines, as_json=as_json(json))
