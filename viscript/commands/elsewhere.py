"""Logs of other hosts, behind `logs` and no command of its own: read over the bus as ours are from files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from viscript.commands import printed
from viscript.errors import NoDaemon, Unknown
from viscript.logfiles import Line
from viscript.logplaces import Place
from viscript.output import note

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.home import Home
    from viscript.logfiles import Cursor

EVERY = 0.5  # seconds between two questions whether there is more
AGAIN = 2.0  # seconds until a host that is away is asked again


def split(home: Home, words: Sequence[str], host: str) -> tuple[list[str], dict[str, list[str]]]:
    """The words that are of this host, and those of others, by its name; `host` has all of them."""
    from viscript.cluster import files

    known = files.load_known(home)
    if known is None:
        return ([], {host: list(words)}) if host else (list(words), {})
    if host:
        return (list(words), {}) if host == known.name else ([], {host: list(words)})
    names = {each.name for each in known.directory.accepted}
    here: list[str] = []
    there: dict[str, list[str]] = {}
    for word in words:
        name, colon, what = word.partition(":")
        if not colon or not what or name not in names:
            here.append(word)
        elif name == known.name:
            here.append(what)
        else:
            there.setdefault(name, []).append(what)
    return here, there


class Session:
    """With the daemon of another host; made anew when it breaks."""

    def __init__(self, client: Client, stack: ExitStack) -> None:
        self._client = client
        self._stack = stack
        self._away = False

    def ask(self, request: printed.Request) -> printed.Reply:
        """`NoDaemon`, `Unknown` when it does not answer."""
        return self._client.ask(printed.SUBJECT, request, printed.Reply)

    def ask_patiently(self, request: printed.Request) -> printed.Reply | None:
        """None while the host is away, of which the first time is told."""
        try:
            if self._away:
                self._client = self._stack.enter_context(self._client.renewed())
            reply = self.ask(request)
        except (NoDaemon, Unknown) as problem:
            if not self._away:
                note(f"{problem}; goes on when it is back")
            self._away = True
            return None
        self._away = False
        return reply

    def renew(self, client: Client) -> None:
        """Ask with this client from now on."""
        self._client = client

    def find(self, words: Sequence[str]) -> list[Place]:
        """The logs that the words mean there."""
        from pathlib import Path

        name = self._client.host
        found = self.ask(printed.Request(list(words))).logs
        return [Place(Path(f"{name}:{x.app}"), x.app, x.id or None, host=name) for x in found]


class Reader:
    """As `viscript.logfiles.Reader`."""

    def __init__(
        self, session: Session, place: Place, *, last: int | None = None, since: float | None = None
    ) -> None:
        self.session = session
        self._place = place
        self._last, self._since = last, since
        self._cursor: Cursor | None = None
        self._asked = False
        self._due = 0.0
        self._rest = b""
        self._given = 0  # bytes of the line without an end that were given

    def lines(self) -> Iterator[Line]:
        """What is there now and was not given yet; when it is not time to ask again, nothing."""
        ask: Callable[[printed.Request], printed.Reply | None] = (
            self.session.ask_patiently if self._asked else self.session.ask
        )
        while time.monotonic() >= self._due:
            reply = ask(self._request())
            if reply is None:
                self._due = time.monotonic() + AGAIN
                return
            self._asked = True
            self._cursor, self._rest = reply.cursor, reply.rest
            for moment, text in reply.lines:
                yield Line(moment, text[self._given :])
                self._given = 0
            if not reply.more:
                self._due = time.monotonic() + EVERY

    def hurry(self) -> None:
        """Ask at once next time."""
        self._due = 0.0

    def close(self) -> None:
        """Nothing is held there."""

    def rest(self) -> Iterator[Line]:
        """What has no end yet and was not given."""
        if len(self._rest) > self._given:
            yield Line(None, self._rest[self._given :], whole=False)
            self._given = len(self._rest)

    def _request(self) -> printed.Request:
        number = self._place.id or 0
        if self._cursor is not None:
            return printed.Request(id=number, app=self._place.app, cursor=self._cursor)
        if self._asked:  # nothing had been printed: all that comes is new
            return printed.Request(id=number, app=self._place.app)
        return printed.Request(id=number, app=self._place.app, last=self._last, since=self._since)
