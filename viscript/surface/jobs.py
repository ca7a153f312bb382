"""Arguments of `viscript job`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import HostName, as_json, daemon_of

if TYPE_CHECKING:
    from typer._click import Command, Context


class Jobs(TyperGroup):
    """The group `job`, in which a number alone means `show`."""

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        return super().resolve_command(ctx, ["show", *args] if args[0].isdecimal() else args)


app = typer.Typer(
    cls=Jobs, help="What was asked for, and what has become of it; results are kept ten minutes.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
Number = Annotated[int, typer.Argument(metavar="JOB", min=1, help="See: viscript job ls.")]


@app.command()
def ls(*, host: HostName = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List jobs that are at work or ended lately."""
    from viscript import options
    from viscript.commands import job as command

    options.given.take(home, json=json)
    with daemon_of(host, home) as daemon:
        command.ls(daemon)


@app.command()
def show(
    number: Number,
    wait: Annotated[
        float, typer.Option("--wait", metavar="S", min=0.0, help="Wait so long for its end.")
    ] = 0.0,
    *,
    host: HostName = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show a job; the exit code is what the verb's would have been, 7 while it is at work."""
    from viscript.commands import job as command

    with daemon_of(host, home) as asked:
        command.show(asked, number, timeout=wait, as_json=as_json(json))


@app.command()
def cancel(
    number: Number, *, host: HostName = None, home: HomeOption = None, json: JsonOption = False
) -> None:
    """Begin nothing more of a job; what has begun goes on."""
    from viscript.commands import job as command

    with daemon_of(host, home) as asked:
        command.cancel(asked, number, as_json=as_json(json))
