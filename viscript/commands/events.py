"""`viscript events [-f]`: a snapshot, then what happens to launches, in order and without gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from viscript.commands import everywhere
from viscript.errors import Failed
from viscript.events import FETCH, Event, Fetch, Page, sentence
from viscript.output import line, moment, note, say
from viscript.selectors import Selector, parse
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

    def __init__(self, words: list[str], *, as_json: bool) -> None:
        self._selector: Selector | None = parse(words) if words else None
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
        for event in page.events:
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
    """The newest events, oldest first."""
    answers = everywhere.ask(client, SUBJECT, Fetch(None, newest), Page)
    shown = Shown(words, as_json=as_json)
    shown.hosts = {page.host for page in answers.replies}
    events = [event for page in answers.replies for event in page.events]
    for event in sorted(events, key=lambda event: event.ts)[max(0, len(events) - newest) :]:
        shown.event(event)
    answers.complete()


def run_on(home: Home, words: list[str], *, newest: int, as_json: bool) -> None:
    """A snapshot, then events until Ctrl-C, whatever happens to daemon and broker."""
    import asyncio

    from viscript.following import follow

    asyncio.run(follow(home, Shown(words, as_json=as_json).tell, newest=newest))
