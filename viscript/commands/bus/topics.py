"""`viscript bus topics`: what is kept, for how long, and reading it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from viscript.commands.bus import complete
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    import msgspec

    from bus.client import Bus
    from bus.signals import TopicInfo

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None,
    help="Durable topics: messages that the broker keeps on its disk.",
)  # fmt: skip

Topic = Annotated[str, typer.Argument(metavar="TOPIC", autocompletion=complete.topics)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PAGE = 64  # records asked for at once
WAIT = 30.0  # seconds of one question for what comes


@app.command("list")
def list_() -> None:
    """List the topics."""
    from bus.signals import TOPICS, Topics
    from viscript.commands.bus.connection import ask_all
    from viscript.output import listing, size

    found = ask_all(TOPICS, Topics).topics
    head = ("TOPIC", "SUBJECTS", "MESSAGES", "SIZE", "FIRST", "LAST", "CONSUMERS", "KEPT")
    rows = (
        (
            t.config.topic, " ".join(t.config.subjects), str(t.messages), size(t.bytes),
            str(t.first), str(t.last), str(t.consumers), _kept(t),
        )
        for t in found
    )  # fmt: skip
    listing(found, head, rows, "No topics. Make one: viscript bus topics add --help")


def _kept(info: TopicInfo) -> str:
    from viscript.output import size

    config, parts = info.config, []
    if config.max_age:
        parts.append(f"{config.max_age:g} s")
    if config.max_bytes:
        parts.append(size(config.max_bytes))
    if config.max_messages:
        parts.append(f"{config.max_messages} messages")
    if not parts:
        return "for ever"
    return ", ".join(parts) + (", then refuses" if config.full == "reject" else "")


@app.command(
    "add",
    epilog=examples(
        "viscript bus topics add orders 'app.orders.>' --max-age 604800",
        "viscript bus topics add audit app.audit --max-bytes 1000000000 --full reject",
    ),
)
def add(
    topic: Topic,
    subjects: Annotated[list[str], typer.Argument(metavar="SUBJECT...", help="Patterns.")],
    *,
    max_age: Annotated[
        float | None, typer.Option(min=0, help="Seconds; 0: no limit, as in the beginning.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(min=0, help="0: no limit, as in the beginning.")
    ] = None,
    max_messages: Annotated[
        int | None, typer.Option(min=0, help="0: no limit, as in the beginning.")
    ] = None,
    full: Annotated[
        str | None,
        typer.Option(
            metavar="drop_old|reject",
            autocompletion=complete.words("drop_old", "reject"),
            help="What happens at --max-bytes, --max-messages; in the beginning drop_old.",
        ),
    ] = None,
    dedup: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds for which a message id is remembered; in the beginning 120."
        ),
    ] = None,
) -> None:
    """Make a topic, or change its subjects and the limits that are given; the others stay."""
    from bus.signals import TOPIC_PUT, TOPICS, TopicConfig, Topics
    from viscript.commands.bus.connection import ask, ask_all
    from viscript.errors import BadUsage

    if full not in {None, "drop_old", "reject"}:
        raise BadUsage(f"--full is drop_old or reject, not {full!r}")
    known = [t.config for t in ask_all(TOPICS, Topics).topics if t.config.topic == topic]
    config = changed(
        known[0] if known else TopicConfig(topic, subjects),
        subjects=subjects, max_age=max_age, max_bytes=max_bytes, max_messages=max_messages,
        full=full, dedup=dedup,
    )  # fmt: skip
    ask(TOPIC_PUT, config, dict)
    done(config, f"{topic} keeps what is published to {' '.join(subjects)}")


@app.command("rm")
def remove(topic: Topic, *, yes: Yes = False) -> None:
    """Remove a topic with all that is in it and its consumers."""
    from bus.signals import TOPIC_REMOVE, TopicName
    from viscript.commands.bus.connection import ask

    sure(f"Remove the topic {topic} with all its messages?", yes=yes)
    ask(TOPIC_REMOVE, TopicName(topic), dict)
    done({"removed": topic}, f"{topic} is removed")


C = TypeVar("C", bound="msgspec.Struct")


def changed(config: C, **given: object) -> C:
    """`config` with what was given, and the rest as it is."""
    from msgspec.structs import replace

    return replace(config, **{key: value for key, value in given.items() if value is not None})


def sure(question: str, *, yes: bool) -> None:
    """Ask, unless told not to; `BadUsage` when nobody can be asked."""
    from viscript.errors import BadUsage
    from viscript.words import clean

    if yes:
        return
    if not sys.stdin.isatty():
        raise BadUsage(f"{question} Nobody can be asked here; say --yes")
    if not typer.confirm(clean(question)):
        raise typer.Abort


def done(fields: object, text: str) -> None:
    """That something is done, for programs or for people."""
    from viscript import options
    from viscript.output import document, say

    if options.as_json():
        document(fields)
    else:
        say(text)


@app.command(
    "read",
    epilog=examples(
        "viscript bus topics read orders --last 10",
        "viscript bus topics read orders --seq 1 --count 1000 --json",
        "viscript bus topics read orders --since 3600 --follow",
    ),
)
def read(
    topic: Topic,
    *,
    seq: Annotated[int | None, typer.Option(min=0, help="From this sequence on.")] = None,
    since: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="What is not older.")
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="The last so many.")] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", min=1, help="At most; 100, with --follow without end."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
) -> None:
    """Show what a topic has, from its beginning or the place given. Nothing is remembered of it."""
    from viscript.commands.bus.connection import attend
    from viscript.errors import BadUsage

    if sum(x is not None for x in (seq, since, last)) > 1:
        raise BadUsage("--seq, --since and --last are three places; give one of them")
    start: dict[str, int | float | None] = {"seq": seq, "last": last}
    if since is not None:
        start["time"] = time.time() - since
    elif seq is None and last is None:
        start["seq"] = 0
    wanted = count if follow else min(count or 100, last or 100)
    attend(lambda bus: _read(bus, topic, start, wanted, follow=follow))


async def _read(
    bus: Bus, topic: str, start: dict[str, int | float | None], wanted: int | None, *, follow: bool
) -> None:
    """`wanted` records, None: without end."""
    while wanted is None or wanted > 0:
        n = PAGE if wanted is None else min(PAGE, wanted)
        wait = WAIT if follow else 0.0
        page = await bus.read(topic, n=n, wait=wait, **start)  # type: ignore[arg-type]
        for record in page.records:
            show(record.seq, record.time, record.subject, record.sender, record.body)
        if wanted is not None:
            wanted -= len(page.records)
        if not follow and not (page.records and page.left):
            return
        start = {"seq": page.next}


def show(
    seq: int, stored: float, subject: str, sender: str, body: bytes, deliveries: int = 0
) -> None:
    """One stored message; `stored` is Unix seconds."""
    from bus.identity import short
    from viscript import options
    from viscript.commands.bus import bodies
    from viscript.output import line, moment, say

    if options.as_json():
        fields = {"seq": seq, "time": stored, "subject": subject, "from": sender}
        if deliveries:
            fields["deliveries"] = deliveries
        line({**fields, "size": len(body), **bodies.fields(body)})
    else:
        again = f"  ({deliveries}. delivery)" if deliveries > 1 else ""
        who, text = short(sender), bodies.readable(body)
        say(f"{seq}  {moment(stored)}  {subject}  {who}  {text}{again}")
