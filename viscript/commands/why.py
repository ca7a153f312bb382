"""`viscript why APP`: what it waits for or why it failed, when it is tried next, and its last lines."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript import catalog
from viscript.commands import everywhere
from viscript.errors import BadConfig, NotFound
from viscript.events import Event, sentence
from viscript.output import document, moment, say
from viscript.reasons import Reason, Wait, reason, waits
from viscript.records import Probed, Record, Status
from viscript.roles import Role
from viscript.words import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller
    from viscript.selectors import Selector

SUBJECT = "viscript.why"
EVENTS = 6
ENDED = 1000  # the last launches that have ended, among which it looks
MAX_LAUNCHES = 50
MAX_LINES = 200
MAX_LINE = 2000  # characters


class Request(Struct):
    words: list[str]
    lines: int = 20


class Explained(Struct):
    """One launch, or an app that was never started: then `status` is null."""

    app: str
    status: Status | None
    text: str
    advice: list[str]
    waits: list[Wait]
    next_try: float | None  # Unix seconds
    events: list[Event]
    log: list[str]  # the last lines
    log_file: str
    probe: Probed | None = None  # what its own probe said last


class Reply(Struct):
    explained: list[Explained]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """Live launches that are meant; of an app that has none, its last; else what is configured."""
    from viscript import meaning, selectors

    selector = meaning.selected(launcher, request.words)
    found: dict[int | str, Record | catalog.Offered] = {}
    parts: Sequence[Selector] = selectors.named(selector) or [selector]
    for part in parts:
        meant = _meant(launcher, part, caller)
        if not meant:
            raise NotFound(f"nothing is known of {part}; see: viscript la --all, viscript apps")
        found |= {x.id if isinstance(x, Record) else x.app: x for x in meant}
    lines = max(0, min(request.lines, MAX_LINES))
    return Reply(
        [
            await _explain(launcher, x, lines)
            if isinstance(x, Record)
            else _configured(launcher, x.app)
            for x in list(found.values())[:MAX_LAUNCHES]
        ]
    )


def _meant(
    launcher: Launcher, selector: Selector, caller: Caller
) -> list[Record] | list[catalog.Offered]:
    """Of what the caller may see."""
    from viscript.selectors import select

    live = select(selector, (x for x in launcher.records.values() if caller.may(Role.VIEW, x)))
    if live:
        return live
    ended = [x for x in launcher.store.ended(ENDED) if caller.may(Role.VIEW, x)]
    last = select(selector, ended)
    if last:
        exact = [x for x in last if str(x.id) == str(selector)]
        return exact or list({record.app: record for record in last}.values())
    offered = map(catalog.offered, launcher.config.apps.values())
    return select(selector, (x for x in offered if caller.may(Role.VIEW, x)))


async def _explain(launcher: Launcher, record: Record, lines: int) -> Explained:
    import asyncio

    status = record.status()
    waiting = waits(record.after, launcher.records.values(), launcher.outcomes)
    why = reason(record.status(), waiting, time.time())
    events: list[Event] = []
    if launcher.recorder is not None:
        history = launcher.recorder.events.history
        events = await asyncio.to_thread(history, lambda event: event.id == record.id, EVENTS)
    file = launcher.home.app_log(record.id, record.app)
    log = await asyncio.to_thread(_tail, launcher, record, lines)
    return Explained(
        record.app, status, why.text, why.advice, waiting, status.next_try, events, log, str(file),
        launcher.probed.get(record.id),
    )  # fmt: skip


def _tail(launcher: Launcher, record: Record, lines: int) -> list[str]:
    from viscript.processes import tail

    found = tail(launcher.home.app_log(record.id, record.app), lines)
    return [line[:MAX_LINE] for line in found]


def _configured(launcher: Launcher, name: str) -> Explained:
    """An app that has no launch."""
    app = launcher.config.apps[name]
    why = Reason("was never started", [f"viscript start {name}"])
    try:
        catalog.command(launcher.config, app, (), os.environ.get("PATH", os.defpath))
    except BadConfig as error:
        why = Reason(f"cannot be started: {error}", ["viscript config check"])
    return Explained(name, None, why.text, why.advice, [], None, [], [], "")


def run(client: Client, words: list[str], *, lines: int, as_json: bool) -> None:
    answers = everywhere.ask(client, SUBJECT, Request(words, lines), Reply)
    explained = [each for reply in answers.replies for each in reply.explained]
    launched = {each.app for each in explained if each.status is not None}
    # That it was never started on a host says nothing where it was on another.
    explained = [x for x in explained if x.status is not None or x.app not in launched]
    if as_json:
        document(explained)
    else:
        for position, each in enumerate(explained):
            if position:
                say()
            _show(each)
    answers.complete()


def _show(each: Explained) -> None:
    if each.status is None:
        say(f"{each.app} {each.text}")
    else:
        since = moment(each.status.since)
        host = f"{each.status.host}:" if each.status.host else ""
        name = f"{host}{each.app} (ID {each.status.id})"
        say(f"{name} is {each.status.state} since {since}: {each.text}")
    for wait in each.waits:
        mark = "done" if wait.met else "open"
        say(f"  needs {wait.app} to be {wait.until}: {mark}, it is {wait.state}")
    if each.probe is not None:
        told = "is well" if each.probe.ok else f"fails: {each.probe.text or 'no answer'}"
        say(f"  its probe ({each.probe.kind}) {told}, at {moment(each.probe.at)}")
    for advice in each.advice:
        say(f"  try: {advice}")
    if each.events:
        say("  what happened:")
    for event in each.events:
        say(f"    {one_line(sentence(event, moment))}")
    if each.log:
        say(f"  its last lines ({each.log_file}):")
    for line in each.log:
        say(f"    {line}")
