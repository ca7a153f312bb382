"""Arguments of the commands about what apps print."""

# ruff: noqa: FBT002, PLR0913, PLR0917 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import as_json

DEFAULT = 50


def logs(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SELECTOR]...", help="Ids, apps, …; broker, daemon; none: all that run."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", "-n", min=0, help=f"How many of the last; {DEFAULT} without --since."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="10s, 5m, 2h, 7d ago; or 14:30.")
    ] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", metavar="REGEX", help="Only lines in which it is.")
    ] = None,
    times: Annotated[bool, typer.Option("--times", "-t", help="When each was printed.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Leave control sequences in.")] = False,
    host: Annotated[
        str, typer.Option("--host", metavar="NAME", help="Of that host of the cluster.")
    ] = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show what apps printed, of several merged by time; HOST:APP on another host."""
    import time

    from viscript.commands import logs as command

    moment = command.moment_of(since, time.time()) if since is not None else None
    how = command.How(
        lines=DEFAULT if lines is None and since is None else lines, since=moment,
        grep=command.pattern_of(grep) if grep is not None else None, follow=follow, raw=raw,
        times=times, as_json=as_json(json),
    )  # fmt: skip
    command.run(options.home(home), targets or [], host, how)
