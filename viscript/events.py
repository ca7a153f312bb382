"""What happened to launches, numbered; and how who follows notices what it has missed. Pure.

The daemon of a host numbers its events without gaps, also over its own restarts. They are published on
`SUBJECT` as hints; the truth is what the daemon answers to `FETCH`. A follower asks for a snapshot first,
takes events that follow the last one it knows, and asks again when a number is missing.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from viscript.records import Status

SUBJECT = "viscript.events"  # where daemons publish: a `Published`
FETCH = "viscript.events.fetch"  # a request: `Fetch` -> `Page`
MAX_TEXT = 400  # characters of an event's sentence
PAGE = 500  # events of one answer

DAEMON, BROKER = "daemon", "broker"  # what stands as `app` in events of the host itself, with id 0


class Event(Struct, frozen=True, kw_only=True):
    """One change of one launch. `from` is empty for a launch that is new; times are Unix seconds."""

    seq: int
    ts: float
    host: str = ""
    app: str
    id: int = 0
    before: str = field(default="", name="from")
    to: str
    cause: str  # start, spawned, ready, stop, exited, ended, timer, adopt, …
    by: str = ""  # who asked for it, if somebody did
    groups: list[str] | None = (
        None  # of the app; None: not known, as of events from before they were kept
    )
    text: str = ""  # for people


class Published(Struct, frozen=True, kw_only=True):
    """What daemons publish: an event, or only the number of the last one, after they came (back)."""

    host: str
    last: int
    event: Event | None = None


class Fetch(Struct, frozen=True):
    """Events after the number `after`; None: the last `limit`, with a snapshot."""

    after: int | None = None
    limit: int = 0


class Page(Struct, frozen=True, kw_only=True):
    """An answer. `complete` is false when events after the number asked for are forgotten."""

    host: str
    last: int  # the number of the newest event there is
    complete: bool
    events: list[Event]
    launches: list[Status] | None = None  # the snapshot, as of `last`


class Follower:
    """Which events of one daemon are new to us, in order, none twice, none left out unnoticed.

    `offer` what is published, `page` what was fetched; after them `missing` says whether to fetch again,
    and with which `after`: None means that only a new snapshot helps.
    """

    def __init__(self) -> None:
        self.after: int | None = None
        self.missing = True

    def offer(self, published: Published) -> list[Event]:
        """What of it is to be shown now."""
        event = published.event
        if self.after is None:
            return []
        if event is not None and event.seq == self.after + 1:
            self.after = event.seq
            self.missing = published.last > self.after
            return [event]
        # Below what we know: a repetition, or the daemon has lost its log and counts anew.
        if event is None or event.seq > self.after + 1:
            self.missing = self.missing or published.last != self.after
        return []

    def page(self, page: Page) -> list[Event]:
        """What of it is to be shown now; a page with a snapshot makes everything before it known."""
        if page.launches is not None:
            self.after, self.missing = page.last, False
            return page.events
        if self.after is None:
            return []
        new = [event for event in page.events if event.seq > self.after]
        follows = new[0].seq == self.after + 1 if new else page.last == self.after
        if not page.complete or not follows:
            self.after, self.missing = None, True
            return []
        self.after = new[-1].seq if new else self.after
        self.missing = page.last > self.after
        return new


def sentence(event: Event, moment: Callable[[float], str], *, host: bool = False) -> str:
    """One line for people, with its host if wanted. `moment` formats the time."""
    name = f"{event.host}:{event.app}" if host else event.app
    name = f"{name} (ID {event.id})" if event.id else name
    change = event.to if event.before in {"", event.to} else f"{event.before} -> {event.to}"
    tail = "".join(f"; {part}" for part in (event.by and f"by {event.by}", event.text) if part)
    return f"{moment(event.ts)}  {name}  {change}  ({event.cause}{tail})"
