"""`viscript events [-f]`: a snapshot, then what happens to launches, in order and without gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from viscript import meaning
from viscript.commands import everywhere, history
from viscript.errors import Failed
from viscript.events import FETCH, PAGE, Event, Fetch, Page, sentence
from viscript.output import line, moment, note, say
from viscript.words import one_line

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.following import Told
    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.records import Status
    from viscript.roles import Caller

SUBJECT = FETCH
Request = Fetch


async def handle(launcher: Launcher, request: Fetch, _caller: Caller) -> Page:
    """Without a number to go on from, a snapshot of what is live comes along."""
    import msgspec

    if launcher.recorder is None:
        raise Failed("this daemon keeps no events; see: viscript status")
    page = launcher.recorder.events.page(request.after, request.limit)
    if request.after is None:
        launches = [record.status() for record in launcher.records.values()]
        page = msgspec.structs.replace(page, launches=launches)
    return page


class Shown:
    """Writes what is told, for people or as JSON lines; only of what the selector matches."""

    def __init__(self, home: Home, words: list[str], *, newest: int = 0, as_json: bool) -> None:
        """`newest`: how many events are told with a snapshot."""
        self._newest = newest
        self._selector = meaning.selected_here(home, words) if words else None
        self._as_json = as_json
        self.hosts: set[str] = set()  # whose snapshot was shown

    def tell(self, told: Told) -> None:
        match told:
            case Event():
                self.event(told)
            case Page():
                self._snapshot(told)
            case _:
                self._away(told.text)

    def event(self, event: Event) -> None:
        if not self._wanted(event):
            return
        if self._as_json:
            line(fields(event))
        else:
            say(one_line(sentence(event, moment, host=len(self.hosts) > 1)))

    def _snapshot(self, page: Page) -> None:
        launches = [x for x in page.launches or [] if self._wanted(x)]
        again = page.host in self.hosts
        self.hosts.add(page.host)
        for event in _last([x for x in page.events if self._wanted(x)], self._newest):
            self.event(event)
        if self._as_json:
            shown = {"kind": "snapshot", "host": page.host, "seq": page.last, "again": again}
            line({**shown, "launches": launches})
            return
        if again:
            note(f"events of {page.host} were missed; as it is now:")
        for status in launches:
            say(one_line(_now(status, page.host if len(self.hosts) > 1 else "")))

    def _away(self, text: str) -> None:
        if self._as_json:
            line({"kind": "away", "text": text})
        else:
            note(f"{text}; waiting for it")

    def _wanted(self, what: Event | Status) -> bool:
        return self._selector is None or self._selector.matches(what)


def fields(event: Event) -> dict[str, Any]:
    """An event as a JSON line."""
    import msgspec

    shown: dict[str, Any] = msgspec.to_builtins(event)
    return {"kind": "event", **shown}


def _now(status: Status, host: str) -> str:
    from viscript.commands.list import remark

    told = remark(status)
    name = f"{host}:{status.app}" if host else status.app
    return (
        f"{moment(status.since)}  {name} (ID {status.id})  is {status.state}"
        f"{f'  ({told})' if told else ''}"
    )


def run(client: Client, words: list[str], *, newest: int, as_json: bool) -> None:
    """The newest events, of all or of what is named, oldest first."""
    answers: everywhere.Answers[Page] | everywhere.Answers[history.Reply]
    if words:
        named = history.Request(words, newest)
        answers = everywhere.ask(client, history.SUBJECT, named, history.Reply)
    else:  # these are in memory, also when the disk is full
        answers = everywhere.ask(client, SUBJECT, Fetch(None, newest), Page)
    events = [event for reply in answers.replies for event in reply.events]
    shown = Shown(client.home, [], as_json=as_json)
    shown.hosts = {event.host for event in events}
    for event in _last(sorted(events, key=lambda event: event.ts), newest):
        shown.event(event)
    answers.complete()
    if words and not events and not as_json:
        raise history.nothing(words)


def _last(events: list[Event], count: int) -> list[Event]:
    return events[max(0, len(events) - count) :]


def run_on(home: Home, words: list[str], *, newest: int, as_json: bool) -> None:
    """A snapshot, then events until Ctrl-C, whatever happens to daemon and broker."""
    import asyncio

    from viscript.following import follow

    shown = Shown(home, words, newest=newest, as_json=as_json)
    asyncio.run(follow(home, shown.tell, newest=PAGE if words and newest else newest))
