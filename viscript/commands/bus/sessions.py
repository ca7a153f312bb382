"""`viscript bus sessions` and `kick`: who is on the bus, who was, and ending it for somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import complete, typed
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.signals import ClosedSession, SessionInfo

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "sessions",
    epilog=examples("viscript bus sessions", "viscript bus sessions --closed --json"),
)
def sessions(
    *,
    closed: Annotated[
        bool, typer.Option("--closed", help="The last that ended, and why, newest first.")
    ] = False,
) -> None:
    """List who is on the bus."""
    from bus.signals import CLOSED, ClosedSessions
    from viscript import options
    from viscript.commands.bus.connection import ask_all
    from viscript.output import document, say, table

    found: list[SessionInfo] | list[ClosedSession]
    if closed:
        found = gone = ask_all(CLOSED, ClosedSessions).sessions
        head, rows = _HEAD_CLOSED, [_gone(session) for session in gone]
    else:
        found = here = _everybody()
        head, rows = _HEAD, [_here(session) for session in here]
    if options.as_json():
        document(found)
    elif found:
        table(head, rows)
    else:
        say("None.")


def _everybody() -> list[SessionInfo]:
    """All sessions, page by page."""
    from bus.signals import SESSIONS, Sessions
    from viscript.commands.bus.connection import Asking
    from viscript.commands.bus.where import here

    with Asking(here()) as broker:
        page = broker.ask(SESSIONS, None, Sessions)
        found = list(page.sessions)
        while (query := page.rest) is not None:
            page = broker.ask(SESSIONS, query, Sessions)
            found += page.sessions
    return found


_HEAD_CLOSED: tuple[str, ...] = ("SESSION", "NAME", "KEY", "SINCE", "UNTIL", "CODE", "WHY")


_HEAD: tuple[str, ...] = (
    "SESSION", "NAME", "KEY", "ROLES", "SINCE", "SUBS", "SERVES", "IN", "OUT", "WAITING", "LOST", "CLIENT",
)  # fmt: skip


def _here(session: SessionInfo) -> tuple[str, ...]:
    from bus.identity import short
    from viscript.output import moment, size

    waiting = f"{session.queued}" + (f", {size(session.queued_bytes)}" if session.queued else "")
    return (
        str(session.session), session.name, short(session.key), " ".join(session.roles),
        moment(session.since), str(session.subscriptions), str(session.services),
        size(session.bytes_in), size(session.bytes_out), waiting, str(session.lost),
        f"{session.lang} {session.ver}".strip(),
    )  # fmt: skip


def _gone(session: ClosedSession) -> tuple[str, ...]:
    from bus.identity import short
    from viscript.output import moment

    return (
        str(session.session), session.name, short(session.key), moment(session.since),
        moment(session.until), str(session.num), session.reason,
    )  # fmt: skip


@app.command(
    "kick",
    epilog=examples("viscript bus kick 17 --reason 'wrong machine'", "viscript bus kick KEY"),
)
def kick(
    whom: Annotated[
        str,
        typer.Argument(
            metavar="KEY|SESSION",
            autocompletion=complete.sessions,
            help="All sessions of a key, or one by number.",
        ),
    ],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Told to whom it meets.")] = "",
) -> None:
    """End sessions. Whose key stays allowed may come back at once; see: viscript bus keys forbid."""
    from bus.signals import KICK, Kicked, KickQuery
    from viscript.commands.bus.connection import ask
    from viscript.commands.bus.topics import done
    from viscript.errors import BadUsage, NotFound

    public = typed.key_or_none(whom)
    if public is not None:
        query = KickQuery(key=public, reason=reason)
    elif whom.isdecimal() and len(whom) <= 18:
        query = KickQuery(session=int(whom), reason=reason)
    else:
        raise BadUsage(
            f"neither a key nor a number of a session: {whom!r}; see: viscript bus sessions"
        )
    count = ask(KICK, query, Kicked).count
    if not count:
        raise NotFound(f"no session is {whom}; see: viscript bus sessions")
    done({"kicked": count}, f"{count} session{'s' if count > 1 else ''} ended")
