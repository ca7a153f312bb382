"""`viscript bus events`: sessions opened and closed, what was refused, who is slow, who was revoked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import complete
from viscript.commands.bus.sub import CountOption, ForOption, follow
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.client import Bus, Message

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "events",
    epilog=examples("viscript bus events", "viscript bus events denied slow --json"),
)
def events(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[opened|closed|denied|slow|revoked]...",
            autocompletion=complete.words("opened", "closed", "denied", "slow", "revoked"),
            help="Only these.",
        ),
    ] = None,
    *,
    count: CountOption = None,
    seconds: ForOption = None,
) -> None:
    """Show what happens to sessions, until Ctrl-C. With --json a line for each."""
    from bus.signals import EVENTS
    from viscript.commands.bus.connection import attend
    from viscript.errors import BadUsage

    wanted = kinds or []
    unknown = [kind for kind in wanted if kind not in EVENTS]
    if unknown:
        raise BadUsage(f"not a kind of event: {unknown[0]!r}; there are {', '.join(EVENTS)}")

    async def work(bus: Bus) -> None:
        subscription = await bus.subscribe(_pattern(wanted))
        await follow(subscription, count, seconds, _show, only=_only(wanted))

    attend(work)


def _pattern(kinds: list[str]) -> str:
    from bus.signals import EVENT

    return f"{EVENT}.{kinds[0]}" if len(kinds) == 1 else f"{EVENT}.*"


def _only(kinds: list[str]) -> frozenset[str]:
    from bus.signals import EVENT, EVENTS

    return frozenset(f"{EVENT}.{kind}" for kind in kinds or EVENTS)


def _show(message: Message) -> None:
    from bus.errors import Refused
    from bus.identity import is_key, short
    from bus.signals import Event, unpack
    from viscript import options
    from viscript.output import line, moment, warn
    from viscript.words import one_line

    try:
        event = unpack(message.body, Event)
    except Refused as error:
        warn(f"{message.subject}: not understood: {error}")
        return
    if options.as_json():
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        line(fields, flush=False)
        return
    who = short(event.key) if is_key(event.key) else event.key
    told = [moment(event.at), event.what, who, event.name or "-", f"session {event.session}"]
    if event.num or event.reason:
        told.append(f"{event.num} {event.reason}")
    if event.count > 1:
        told.append(f"({event.count} times)")
    sys.stdout.write(one_line("  ".join(told)) + "\n")
