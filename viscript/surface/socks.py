"""Arguments of `viscript socks`."""

from __future__ import annotations

from typing import Annotated

import typer

from viscript import options
from viscript.commands.bus.texts import examples
from viscript.surface.nodes import Nodes

HELP = """What the exits of the SOCKS pair do: who uses them, how much, what they refused."""

app = typer.Typer(cls=Nodes, help=HELP, no_args_is_help=True, rich_markup_mode=None)


@app.command(epilog=examples("viscript socks status", "viscript socks status beta --json"))
def status(
    node: Annotated[
        str | None,
        typer.Argument(metavar="[NODE]", help="Only the exits there, in full; its name or key."),
    ] = None,
) -> None:
    """List the exits on the bus, or show those of one node in full: code 5 when there is none."""
    from viscript.commands import socks

    socks.status(node, as_json=options.as_json())
