"""`viscript bus consumers`: who works through a durable topic, how far, and doing it by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import complete
from viscript.commands.bus.texts import examples
from viscript.commands.bus.topics import Topic, Yes, changed, done, show, sure

if TYPE_CHECKING:
    from bus.client import Bus

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None,
    help="Consumers of durable topics: who has dealt with what.",
)  # fmt: skip

Consumer = Annotated[str, typer.Argument(metavar="CONSUMER", autocompletion=complete.consumers)]


@app.command("list")
def list_(
    topic: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", autocompletion=complete.topics)
    ] = None,
) -> None:
    """List consumers, of all topics or one."""
    from bus.signals import CONSUMERS, Consumers
    from viscript.commands.bus.connection import ask_all
    from viscript.output import listing

    found = [c for c in ask_all(CONSUMERS, Consumers).consumers if topic in {None, c.config.topic}]
    head = ("TOPIC", "CONSUMER", "FILTER", "DONE TO", "IN FLIGHT", "WAITING", "AGAIN", "DEAD")
    rows = (
        (
            c.config.topic, c.config.consumer, c.config.filter, str(c.floor),
            str(c.inflight), str(c.waiting), str(c.redelivered), str(c.dead),
        )
        for c in found
    )  # fmt: skip
    listing(found, head, rows, "No consumers. Make one: viscript bus consumers add --help")


@app.command(
    "add",
    epilog=examples(
        "viscript bus consumers add orders billing",
        "viscript bus consumers add orders audit --start new --filter app.orders.paid",
        "viscript bus consumers add orders slow --ack-wait 600 --max-deliver 3 --dead app.lost",
    ),
)
def add(  # noqa: PLR0913 - a consumer has these
    topic: Topic,
    consumer: Annotated[str, typer.Argument(metavar="CONSUMER")],
    *,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="all|new|last|seq|time",
            autocompletion=complete.words("all", "new", "last", "seq", "time"),
            help="The first message it gets; all, if it is new.",
        ),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(min=0, help="With seq: the sequence; with time: Unix milliseconds."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--filter", metavar="PATTERN", help="What was published there only."),
    ] = None,
    ack_wait: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Seconds until what nobody settled comes again; in the beginning 30."
        ),
    ] = None,
    max_deliver: Annotated[
        int | None, typer.Option(min=0, help="Times; 0: no limit; in the beginning 5.")
    ] = None,
    max_inflight: Annotated[
        int | None, typer.Option(min=1, help="Delivered and not settled; in the beginning 256.")
    ] = None,
    dead: Annotated[
        str | None,
        typer.Option(metavar="SUBJECT", help="For what cannot be delivered; else dead.TOPIC."),
    ] = None,
) -> None:
    """Make a consumer, or change what is given; the rest stays."""
    from bus.signals import CONSUMER_PUT, CONSUMERS, ConsumerConfig, Consumers, ConsumersQuery
    from viscript.commands.bus.connection import Asking
    from viscript.commands.bus.where import here
    from viscript.errors import BadUsage

    if start not in {None, "all", "new", "last", "seq", "time"}:
        raise BadUsage(f"--start is all, new, last, seq or time, not {start!r}")
    if (start in {"seq", "time"}) != bool(at):
        raise BadUsage("--at goes with --start seq or --start time")
    with Asking(here()) as broker:
        known = broker.ask_all(CONSUMERS, Consumers, ConsumersQuery(topic=topic)).consumers
        same = [c.config for c in known if c.config.consumer == consumer]
        config = changed(
            same[0] if same else ConsumerConfig(topic, consumer),
            start=start, at=at, filter=only, ack_wait=ack_wait, max_deliver=max_deliver,
            max_inflight=max_inflight, dead=dead,
        )  # fmt: skip
        broker.ask(CONSUMER_PUT, config, dict)
    done(
        config, f"{consumer} consumes {topic}; next: viscript bus consumers next {topic} {consumer}"
    )


@app.command("rm")
def remove(topic: Topic, consumer: Consumer, *, yes: Yes = False) -> None:
    """Remove a consumer; the messages stay."""
    from bus.signals import CONSUMER_REMOVE, ConsumerName
    from viscript.commands.bus.connection import ask

    sure(f"Remove the consumer {consumer} of {topic}?", yes=yes)
    ask(CONSUMER_REMOVE, ConsumerName(topic, consumer), dict)
    done({"removed": consumer, "topic": topic}, f"{consumer} of {topic} is removed")


def next_(
    topic: Topic,
    consumer: Consumer,
    *,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=256, help="At most.")] = 1,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, max=86400, help="For the first one.")
    ] = 0.0,
    nak: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="Give back: to come again after so long."),
    ] = None,
    term: Annotated[bool, typer.Option("--term", help="Never again: to the dead letters.")] = False,
    keep: Annotated[
        bool, typer.Option("--no-ack", help="Settle nothing: it comes again after --ack-wait.")
    ] = False,
) -> None:
    """Take the next messages and show them. Each is settled (ack) once it is shown.

    Exit code 5 when there is none.
    """
    from viscript.commands.bus.connection import attend
    from viscript.errors import BadUsage, NotFound

    if (nak is not None) + term + keep > 1:
        raise BadUsage("--nak, --term and --no-ack exclude each other")
    act = "nak" if nak is not None else "term" if term else "" if keep else "ack"
    taken = attend(lambda bus: _take(bus, topic, consumer, count, wait, (act, nak or 0.0)))
    if not taken:
        raise NotFound(f"{consumer} of {topic} has no more messages now")


async def _take(
    bus: Bus, topic: str, consumer: str, count: int, wait: float, settle: tuple[str, float]
) -> int:
    act, delay = settle
    records = await bus.pull(topic, consumer, n=count, wait=wait)
    for pulled in records:
        show(pulled.seq, pulled.time, pulled.subject, pulled.sender, pulled.body, pulled.deliveries)
        match act:
            case "ack":
                await pulled.ack()
            case "nak":
                await pulled.nak(delay)
            case "term":
                await pulled.term()
            case _:
                pass
    return len(records)


for _name in ("next", "pull"):
    app.command(
        _name, hidden=_name == "pull",
        epilog=examples(
            "viscript bus consumers next orders billing",
            "viscript bus consumers next orders billing -n 10 --wait 30 --json",
            "viscript bus consumers next orders billing --nak 60",
        ),
    )(next_)  # fmt: skip
