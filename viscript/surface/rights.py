"""Arguments of `viscript role` and `viscript audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.keyarguments import TakesKeys
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import HostName, as_json, daemon_of

app = typer.Typer(
    help="Who may what on this host: view < operate < configure < admin. What nothing allows is refused.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
Key = Annotated[str, typer.Argument(metavar="KEY", help="A public key, 40 characters.")]
OnOption = Annotated[
    str | None, typer.Option("--on", metavar="SELECTOR", help="Only on what it matches.")
]


@app.command()
def ls(*, host: HostName = None, home: HomeOption = None, json: JsonOption = False) -> None:
    """List which other keys may do what."""
    from viscript.commands import role as command

    options.given.take(home, json=json)
    with daemon_of(host, home) as daemon:
        command.ls(daemon)


@app.command("set", cls=TakesKeys)
def set_(
    key: Key,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="view, operate, configure or admin.")],
    *,
    on: OnOption = None,
    name: Annotated[str, typer.Option("--name", metavar="N", help="For people.")] = "",
    host: HostName = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Let a key do something here; the broker lets it in, too."""
    from viscript.commands import role as command
    from viscript.roles import EVERYTHING, Grant, Role

    entry = command.Entry(key, role, EVERYTHING if on is None else on, name)
    Grant(key, Role.named(role), entry.on, name).check()
    with daemon_of(host, home) as daemon:
        command.put(daemon, entry, as_json=as_json(json))


@app.command(cls=TakesKeys)
def rm(
    key: Key,
    on: OnOption = None,
    *,
    host: HostName = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Take roles from a key: all, or that on one selector."""
    from viscript.commands import role as command

    with daemon_of(host, home) as daemon:
        command.remove(daemon, key, on, as_json=as_json(json))


def audit(
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last.")] = 50,
    *,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY|NAME", help="By whom.")] = None,
    denied: Annotated[bool, typer.Option("--denied", help="Only what was refused.")] = False,
    host: HostName = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show who asked this host for what, and what came of it. With --json a line each."""
    from viscript.commands import audit as command

    wanted = command.Request(lines, key, refused=denied)
    if host:
        with daemon_of(host, home) as daemon:
            command.run_there(daemon, wanted, as_json=as_json(json))
    else:
        command.run(options.home(home), wanted, as_json=as_json(json))
