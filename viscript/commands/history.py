"""`viscript history [APP…]`: what happened to launches, as far as the log on the host goes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands import everywhere
from viscript.errors import BadUsage, NotFound
from viscript.events import PAGE, Event, sentence
from viscript.output import document, moment, say
from viscript.roles import Role
from viscript.words import one_line

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.history"
MAX_DIGITS = 12


class Request(Struct):
    """The newest `limit` of what is named and not older than `since` (Unix seconds)."""

    words: list[str]
    limit: int
    since: float = 0.0


class Reply(Struct):
    events: list[Event]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """Reads files, in a thread."""
    import asyncio

    from viscript import meaning

    if launcher.recorder is None:
        return Reply([])
    selector = meaning.selected(launcher, request.words) if request.words else None

    def wanted(event: Event) -> bool:
        named = selector is None or selector.matches(event)
        return named and event.ts >= request.since and caller.may(Role.VIEW, event)

    limit = max(0, min(request.limit, PAGE))
    return Reply(await asyncio.to_thread(launcher.recorder.events.history, wanted, limit))


def age(text: str) -> float:
    """Seconds of 90, 90s, 10m, 2h or 7d; `BadUsage`."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if not number.isdecimal() or len(number) > MAX_DIGITS:
        raise BadUsage(f"not an age: {text!r}; it looks like 30s, 10m, 2h or 7d")
    return float(number) * unit


def run(client: Client, words: list[str], *, limit: int, since: float, as_json: bool) -> None:
    answers = everywhere.ask(client, SUBJECT, Request(words, limit, since), Reply)
    events = [event for reply in answers.replies for event in reply.events]
    events = sorted(events, key=lambda event: event.ts)[-limit:]
    if as_json:
        document(events)
    else:
        several = len(answers.replies) > 1
        for event in events:
            say(one_line(sentence(event, moment, host=several)))
    answers.complete()
    if not events and not as_json:
        raise nothing(words)


def nothing(words: list[str]) -> NotFound:
    if not words:
        return NotFound("nothing has happened yet")
    return NotFound(f"nothing is known of {' '.join(words)}; names and ids: viscript la --all")
