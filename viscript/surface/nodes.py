"""Arguments of `viscript node`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from viscript import options
from viscript.commands.bus import Verbs, with_common
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from typer._click import Command, Context

HELP = """See through the mesh: its nodes, links, routes, sessions and streams; measure and choose ways.

NODE is a name of your own (viscript node name), a key, or what a node calls itself. What is measured, a node
does: the first of this home, or the one named with --at."""


class Nodes(Verbs):
    """The group `node`; its commands have the options of those of `bus`."""

    def list_commands(self, ctx: Context) -> list[str]:
        return TyperGroup.list_commands(self, ctx)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        command = TyperGroup.get_command(self, ctx, cmd_name)
        return None if command is None else with_common(command)

    def resolve_command(
        self, ctx: Context, args: list[str]
    ) -> tuple[str | None, Command | None, list[str]]:
        return TyperGroup.resolve_command(self, ctx, args)


app = typer.Typer(cls=Nodes, help=HELP, no_args_is_help=True, rich_markup_mode=None)
name = typer.Typer(
    help="Your own names for keys; they come before those that nodes give themselves.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
route = typer.Typer(
    help="Which way traffic goes between two nodes. Choosing needs the home's admin key, or a context so.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
app.add_typer(name, name="name")
app.add_typer(route, name="route")

Which = Annotated[str, typer.Argument(metavar="NODE", help="Name or key; see: viscript node ls.")]
Maybe = Annotated[
    str | None, typer.Argument(metavar="[NODE]", help="Else the first that runs in this home.")
]
Ends = Annotated[str, typer.Argument(metavar="NODE", help="One end.")]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="NODE", help="Who asks; else the first node of this home."),
]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="S", min=0.05, max=10, help="For an answer.")
]


@app.command(epilog=examples("viscript node ls", "viscript node ls --json"))
def ls() -> None:
    """List the nodes that are there, as their manager knows them."""
    from viscript.commands.node import looking

    looking.ls()


@app.command(epilog=examples("viscript node show alpha"))
def show(node: Maybe = None) -> None:
    """Show one node in full: key, links, sessions, counters."""
    from viscript.commands.node import looking

    looking.show(node, as_json=options.as_json())


@app.command(epilog=examples("viscript node peers", "viscript node peers beta --json"))
def peers(node: Maybe = None) -> None:
    """List a node's neighbours: round trip, throughput, what waits, who dialled."""
    from viscript.commands.node import looking

    looking.peers(node)


@app.command(epilog=examples("viscript node routes", "viscript node routes alpha"))
def routes(
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="What this one holds, relayed ones too.")
    ] = None,
) -> None:
    """List all routes, as the manager knows them, or what one node holds."""
    from viscript.commands.node import looking

    looking.routes(node, as_json=options.as_json())


@app.command(epilog=examples("viscript node sessions alpha"))
def sessions(node: Maybe = None) -> None:
    """List a node's sessions, sealed from end to end: state, round trip, what was sent again."""
    from viscript.commands.node import looking

    looking.sessions(node)


@app.command(epilog=examples("viscript node streams alpha --with beta"))
def streams(
    node: Maybe = None,
    *,
    peer: Annotated[
        str | None, typer.Option("--with", metavar="NODE", help="Only those to this node.")
    ] = None,
) -> None:
    """List a node's streams: port, app, state, bytes."""
    from viscript.commands.node import looking

    looking.streams(node, peer)


@app.command(epilog=examples("viscript node ping beta", "viscript node ping beta -n 10 --at alpha"))
def ping(
    node: Which,
    at: AtOption = None,
    count: Annotated[
        int, typer.Option("-n", "--count", metavar="N", min=1, max=10_000, help="How often.")
    ] = 3,
    interval: Annotated[
        float, typer.Option("-i", metavar="S", min=0.01, max=60, help="Between two.")
    ] = 0.5,
    wait: WaitOption = 3.0,
) -> None:
    """Ask a node from end to end, sealed, so that nobody else can answer; code 1 if it never does."""
    from viscript.commands.node import measuring

    measuring.ping(node, at, count, interval, wait, as_json=options.as_json())


@app.command(epilog=examples("viscript node trace beta", "viscript node trace beta --standby"))
def trace(
    node: Which,
    at: AtOption = None,
    probes: Annotated[
        int, typer.Option("-q", "--probes", metavar="N", min=1, max=10, help="Of each hop.")
    ] = 3,
    wait: WaitOption = 2.0,
    *,
    standby: Annotated[
        bool, typer.Option("--standby", help="The route that stands by, not the one in use.")
    ] = False,
) -> None:
    """Show every node on the way and how long it takes there and back; code 1 if the end is silent."""
    from viscript.commands.node import measuring

    measuring.trace(node, at, probes, wait, standby=standby, as_json=options.as_json())


@app.command(epilog=examples("viscript node speed beta --seconds 5 --both"))
def speed(
    node: Which,
    at: AtOption = None,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.1, max=10, help="How long to send.")
    ] = 3.0,
    *,
    both: Annotated[bool, typer.Option("--both", help="Then the other way, too.")] = False,
) -> None:
    """Measure one stream to a node, counted where it arrives. With --json a line for each way."""
    from viscript.commands.node import measuring

    measuring.speed(node, at, seconds, back=both, as_json=options.as_json())


@app.command(epilog=examples("viscript node why beta"))
def why(node: Which, at: AtOption = None) -> None:
    """Tell why traffic to a node goes the way it goes, and which other ways were rejected."""
    from viscript.commands.node import ways

    ways.why(node, at, as_json=options.as_json())


@app.command(
    "map", epilog=examples("viscript node map", "viscript node map --svg mesh.svg --force")
)
def map_(
    *,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw it into FILE.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="FILE may be there already.")] = False,
) -> None:
    """Show the mesh as a graph, as text or as a picture."""
    from viscript.commands.node import charting

    charting.show(svg, replace=force, as_json=options.as_json())


@app.command(epilog=examples("viscript node events --for 60"))
def events(
    *,
    count: Annotated[
        int | None, typer.Option("-n", "--count", metavar="N", min=1, help="End after N.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="S", min=0, help="End after S seconds.")
    ] = None,
) -> None:
    """Show what happens to nodes, links and routes, until Ctrl-C. With --json a line for each."""
    from viscript.commands.node import events as command

    command.show(count, seconds)


@app.command(epilog=examples("viscript node metrics alpha"))
def metrics(node: Maybe = None) -> None:
    """Print a node's counters in Prometheus' text format."""
    from viscript.commands.node import looking

    looking.metrics(node, as_json=options.as_json())


@name.command("ls")
def name_ls() -> None:
    """List them."""
    from viscript.commands.node import names

    names.ls()


@name.command("set", epilog=examples("viscript node name set office beta"))
def name_set(
    word: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")],
    target: Annotated[
        str, typer.Argument(metavar="KEY|NODE", help="A key, or who is called so now.")
    ],
    *,
    force: Annotated[bool, typer.Option("--force", help="NAME may be another's already.")] = False,
) -> None:
    """Name a key; what it calls itself does not matter any more."""
    from viscript.commands.node import names

    names.set_(word, target, replace=force, as_json=options.as_json())


@name.command("rm")
def name_rm(
    word: Annotated[str, typer.Argument(metavar="NAME", help="See: viscript node name ls.")],
) -> None:
    """Forget a name."""
    from viscript.commands.node import names

    names.rm(word, as_json=options.as_json())


@route.command("add", epilog=examples("viscript node route add alpha gamma beta"))
def route_add(
    path: Annotated[
        list[str], typer.Argument(metavar="NODE...", help="All on the way, both ends included.")
    ],
) -> None:
    """Lay a route by hand; it stays until it is given up, also when a better one comes."""
    from viscript.commands.node import ways

    ways.add(path, as_json=options.as_json())


@route.command("ls", epilog=examples("viscript node route ls", "viscript node route ls --json"))
def route_ls() -> None:
    """List the policies and routes by hand that hold; between other nodes the fastest way is used."""
    from viscript.commands.node import ways

    ways.ls()


@route.command("free", epilog=examples("viscript node route free alpha beta"))
def route_free(one: Ends, other: Ends) -> None:
    """Give a route up that was laid by hand: the policy decides again."""
    from viscript.commands.node import ways

    ways.free(one, other, as_json=options.as_json())


@route.command(
    "policy", epilog=examples("viscript node route policy alpha beta --metric widest --avoid gamma")
)
def route_policy(
    one: Ends,
    other: Ends,
    metric: Annotated[
        str,
        typer.Option("--metric", metavar="fastest|shortest|widest", help="Which way is good."),
    ] = "fastest",
    min_hops: Annotated[
        int, typer.Option("--min-hops", metavar="N", min=1, max=16, help="Links, at least.")
    ] = 1,
    max_hops: Annotated[
        int, typer.Option("--max-hops", metavar="N", min=1, max=16, help="Links, at most.")
    ] = 16,
    must: Annotated[
        list[str] | None,
        typer.Option("--must", metavar="NODE", help="Pass it; may be given several times."),
    ] = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option("--avoid", metavar="NODE", help="Not over it; may be given several times."),
    ] = None,
) -> None:
    """Say which ways are good between two nodes; the manager keeps to it from now on."""
    from viscript.commands.node import ways

    wanted = (metric, min_hops, max_hops, must or [], avoid or [])
    ways.policy(one, other, *wanted, as_json=options.as_json())
