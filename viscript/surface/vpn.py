"""Arguments of `viscript vpn`: this machine behind an exit of the mesh."""

# ruff: noqa: FBT002, PLR0913, PLR0917 - typer makes options of parameters

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.options import HomeOption, JsonOption
from viscript.surface.arguments import as_json

app = typer.Typer(
    help="All of this machine's traffic through an exit of the mesh, and nothing beside it.\n\n"
    "The block is there before the tunnel is, and stays whatever dies, until `off`. Needs root.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip


@app.command()
def on(
    exits: Annotated[
        list[str],
        typer.Argument(metavar="KEY|NODE|fastest...", help="Exits; the next when one is lost."),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NETWORK", help="Only this through it; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="NETWORK", help="This beside it; may be repeated."),
    ] = None,
    lan: Annotated[
        bool, typer.Option("--lan", help="The private networks around beside it.")
    ] = False,
    own_dns: Annotated[
        bool, typer.Option("--own-dns", help="Ask the system's resolvers for names, beside it.")
    ] = False,
    offload: Annotated[
        str, typer.Option("--offload", metavar="auto|off", help="Super-packets.")
    ] = "auto",
    node: Annotated[
        str | None, typer.Option("--node", metavar="NAME", help="Of this home; else as configured.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.0, help="Wait so long for a tunnel.")
    ] = 30.0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Lead everything to an exit. Exit code 7: there is no tunnel yet, and nothing leaves meanwhile."""
    from viscript.commands.vpn import changing

    options.given.take(home, json=json)
    changing.check([*(only or []), *(exclude or [])], offload)
    arguments = [word for each in only or [] for word in ("--only", each)]
    arguments += [word for each in exclude or [] for word in ("--exclude", each)]
    arguments += ["--lan"] * lan + ["--own-dns"] * own_dns
    arguments += ["--offload", offload] if offload != "auto" else []
    arguments += ["--node", node] if node else []
    changing.on(options.home(home), exits, arguments, timeout, as_json=as_json(json))


@app.command()
def off(
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.0, help="For the client to end.")
    ] = 30.0,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """End it and put everything back as it was; works when nothing else runs any more."""
    from viscript.commands.vpn import changing

    options.given.take(home, json=json)
    changing.off(options.home(home), timeout, as_json=as_json(json))


@app.command()
def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Exit, since when, rates, what is blocked. Exit code 3: the VPN is off."""
    from viscript.commands.vpn import looking

    options.given.take(home, json=json)
    looking.status(options.home(home), as_json=as_json(json))


@app.command()
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Bring back what is missing, remove what is left over.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Compare what is on this machine with what should be. Exit code 1: something is wrong."""
    from viscript.commands.vpn import looking

    options.given.take(home, json=json)
    code = looking.doctor(options.home(home), repair=repair, as_json=as_json(json))
    if code:
        raise typer.Exit(code)


@app.command()
def exits(
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Only those there; its name or key.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the exits on the bus: who leaves there, how much, what is blocked. Exit code 5: none."""
    from viscript.commands.vpn import exits as showing

    options.given.take(home, json=json)
    showing.show(node, as_json=as_json(json))
