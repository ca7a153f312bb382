"""READ: records of a topic from a place on, and the READs that wait for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bus import wire
from bus.errors import RemoteProtocolError
from bus.routing.alarms import Alarm
from bus.routing.desk import PAGE_BYTES, Desk
from bus.routing.peers import Session
from bus.signals import TopicInfo
from bus.topics.work import Page, ReadPage


@dataclass(slots=True, eq=False)
class _Reader:
    session: Session
    ref: int
    n: int
    until: float  # monotonic seconds
    following: int = 0  # the sequence it waits for


class Reading:
    """The READs of one topic. `info` is kept up to date by who owns both."""

    def __init__(self, info: TopicInfo, desk: Desk) -> None:
        self.info = info
        self._desk = desk
        self._readers: list[_Reader] = []
        self._gone: RemoteProtocolError | None = None
        self._alarm = Alarm(desk.alarms, self.turn)

    def read(self, session: Session, command: wire.Read, now: float) -> None:
        """Answer a READ, now or when there is something or its time is over."""
        places = (command.seq, command.time, command.last)
        if sum(place is not None for place in places) > 1:
            problem = "READ: seq, time and last exclude each other"
            raise RemoteProtocolError(400, "bad_request", problem)
        self._desk.begin(session)
        reader = _Reader(session, command.id, command.n, now + command.wait / 1000)
        self._look(reader, *places)

    def turn(self, now: float) -> None:
        """Look again for those whose record has come, and let go whose time is over."""
        readers, self._readers = self._readers, []
        for reader in readers:
            if reader.following <= self.info.last:
                self._look(reader, reader.following)
            elif reader.until <= now:
                self._answer(reader, reader.following, 0)
            else:
                self._wait(reader)

    def leave(self, session: Session) -> None:
        """A session has ended."""
        self._readers = [reader for reader in self._readers if reader.session is not session]

    def recheck(self, allowed: Callable[[Session], bool]) -> None:
        """Refuse whoever waits and is not allowed to any more."""
        changed = RemoteProtocolError(403, "denied", "the rights of this key have changed")
        for reader in [reader for reader in self._readers if not allowed(reader.session)]:
            self._readers.remove(reader)
            self._fail(reader, changed)

    def end(self, error: RemoteProtocolError) -> None:
        """The topic is removed."""
        self._gone = error
        readers, self._readers = self._readers, []
        for reader in readers:
            self._fail(reader, error)

    def _look(
        self, reader: _Reader, seq: int | None, time: int | None = None, last: int | None = None
    ) -> None:
        work = ReadPage(self.info.config.topic, reader.n, PAGE_BYTES, seq, time, last)
        self._desk.read(work, partial(self._found, reader), reader.session)

    def _found(self, reader: _Reader, outcome: Page | RemoteProtocolError, now: float) -> None:
        if isinstance(outcome, RemoteProtocolError):
            self._fail(reader, outcome)
        elif outcome.records or reader.until <= now or self._gone is not None:
            for record in outcome.records:
                self._desk.send(reader.session, reader.ref, record)
            self._answer(reader, outcome.next, outcome.left)
        elif reader.session.open:
            reader.following = outcome.next
            self._readers.append(reader)
            self.turn(now)

    def _wait(self, reader: _Reader) -> None:
        self._readers.append(reader)
        self._alarm.set(reader.until)

    def _answer(self, reader: _Reader, following: int, left: int) -> None:
        self._desk.end(reader.session)
        self._desk.close(reader.session, reader.ref, following, left)

    def _fail(self, reader: _Reader, error: RemoteProtocolError) -> None:
        self._desk.end(reader.session)
        self._desk.sessions.error(reader.session, error, reader.ref)
