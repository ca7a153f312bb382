"""Who is here and why they left: presence, last wills, events, and the last sessions that were closed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from bus import access as rules
from bus import signals
from bus.errors import RemoteProtocolError
from bus.identity import to_hex
from bus.routing.parts import Part
from bus.routing.peers import Session
from bus.routing.publishing import Publishing
from bus.routing.sessions import Sessions

MAX_CLOSED = 1000  # sessions remembered after their end
EVENT_PAUSE = 1.0  # seconds between events of one kind about one session, where a peer causes them
# Ends after which no will is published: the broker stopped, and a key that is not allowed any more.
_SILENT_ENDS = frozenset({401, 503})


@dataclass(slots=True)
class _Tally:
    """What was noted of one session and kind, and is not told yet."""

    num: int = 0
    reason: str = ""
    count: int = 0
    not_before: float = 0.0  # monotonic seconds


class Presence(Part):
    """What the broker publishes about the sessions."""

    def __init__(self, sessions: Sessions, publishing: Publishing) -> None:
        self._sessions = sessions
        self._publishing = publishing
        self._closed: deque[signals.ClosedSession] = deque(maxlen=MAX_CLOSED)
        self._tallies: dict[tuple[str, Session], _Tally] = {}
        self._next_tally: float | None = None
        sessions.leaving.append(self._left)
        sessions.note = self.note

    @property
    def closed(self) -> Sequence[signals.ClosedSession]:
        """The last sessions that ended, newest first."""
        return list(reversed(self._closed))

    def arrived(self, session: Session) -> None:
        self._event(session, "opened")
        if len(self._sessions.of(session.key)) == 1:
            self._announce(session, "online", "")

    def note(self, what: str, session: Session, num: int, reason: str) -> None:
        """Something befell a session. What may happen often is told once for many, a second apart."""
        if what not in {"denied", "slow"}:
            self._event(session, what, num, reason)
            return
        tally = self._tallies.setdefault((what, session), _Tally())
        if tally.count == 0:
            tally.num, tally.reason = num, reason
            due = tally.not_before
            self._next_tally = due if self._next_tally is None else min(self._next_tally, due)
        tally.count += 1

    @property
    def next_deadline(self) -> float | None:
        return self._next_tally

    def handle_timer(self, now: float) -> None:
        """Tell what was noted, as far as it is time."""
        self._next_tally = None
        waiting = []
        for (what, session), tally in list(self._tallies.items()):
            if tally.not_before > now:
                waiting.append(tally.not_before)
            elif tally.count == 0 or not session.open:
                self._tallies.pop((what, session), None)
            else:
                self._tell(what, session, tally)
                tally.not_before = now + EVENT_PAUSE
                waiting.append(tally.not_before)
        self._next_tally = min(waiting, default=None)

    def _tell(self, what: str, session: Session, tally: _Tally) -> None:
        count, tally.count = tally.count, 0
        self._event(session, what, tally.num, tally.reason, count)

    def _left(self, session: Session, num: int, reason: str) -> None:
        for what in ("denied", "slow"):
            tally = self._tallies.pop((what, session), None)
            if tally is not None and tally.count:
                self._tell(what, session, tally)
        closed = signals.ClosedSession(
            key=session.key, name=session.name, session=session.number, since=session.since,
            until=self._sessions.clock(), num=num, reason=reason,
        )  # fmt: skip
        self._closed.append(closed)
        if num not in _SILENT_ENDS:
            self._publish_will(session)
        self._event(session, "closed", num, reason)
        if not self._sessions.of(session.key):
            self._announce(session, "offline", reason)

    def _publish_will(self, session: Session) -> None:
        will, session.will = session.will, None
        if will is None or not rules.may(session.rights, "publish", will.subject):
            return
        self._say(session.key, will.subject, will.body)

    def _announce(self, session: Session, state: str, reason: str) -> None:
        presence = signals.Presence(session.key, session.name, state, reason)
        subject = f"{signals.PRESENCE}.{to_hex(session.key)}"
        self._say(self._sessions.info.key, subject, signals.pack(presence))

    def _event(
        self, session: Session, what: str, num: int = 0, reason: str = "", count: int = 1
    ) -> None:
        event = signals.Event(
            what,
            session.key,
            self._sessions.clock(),
            session.name,
            session.number,
            num,
            reason,
            count,
        )
        self._say(self._sessions.info.key, f"{signals.EVENT}.{what}", signals.pack(event))

    def _say(self, sender: str, subject: str, body: bytes) -> None:
        try:
            self._publishing.announce(sender, subject, body)
        except (
            RemoteProtocolError
        ) as error:  # a durable topic that is full: nobody is there to be told
            self._sessions.denied[error.err] += 1
