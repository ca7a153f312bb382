"""What the parts of durable topics share: the journal, the alarms, who waits, and how answers are sent."""

from __future__ import annotations

from collections import Counter, deque
from functools import partial

from bus import subjects, wire
from bus.errors import RemoteProtocolError
from bus.routing.alarms import Alarms
from bus.routing.peers import Session
from bus.routing.sessions import Sessions
from bus.signals import TopicConfig
from bus.topics.work import Append, Journal, Record, Then, Work

MAX_WAITING = 256  # PULLs and READs of one session that are not answered yet
MAX_READING = 16  # reading works in the journal at once: so many answers may be in memory
# What of one key may wait to be stored: a quarter of what the journal takes.
MAX_STORING = 4096
MAX_STORING_BYTES = 16 << 20
PAGE_BYTES = 4 << 20  # of the bodies that answer one PULL or READ, beyond the first record


class Desk:
    """Where the works go out from and the answers."""

    def __init__(self, sessions: Sessions, journal: Journal) -> None:
        self.sessions = sessions
        self.alarms = Alarms()
        self._journal = journal
        self._waiting: Counter[Session] = Counter()
        self._reading = 0
        self._to_read: deque[tuple[Work, Then, Session | None]] = deque()
        self._storing: dict[str, tuple[int, int]] = {}  # works and bytes by key

    def submit(self, work: Work, then: Then) -> None:
        """Hand a work to the journal; 429 when it has too much to do already."""
        if not self._journal.submit(work, then):
            problem = "the broker's disk does not keep up: too much waits to be stored or read"
            raise RemoteProtocolError(429, "limit", problem)

    def store(self, key: str, work: Append, then: Then) -> None:
        """Hand in what a key has published; 429 when too much of it waits already."""
        works, held = self._storing.get(key, (0, 0))
        size = sum(map(len, work.bodies))
        if works >= MAX_STORING or (works and held + size > MAX_STORING_BYTES):
            problem = (
                "too much of this key waits to be stored; wait for OKs before you publish more"
            )
            raise RemoteProtocolError(429, "limit", problem)
        self.submit(work, partial(self._stored, key, size, then))
        self._storing[key] = works + 1, held + size

    def read(self, work: Work, then: Then, session: Session | None = None) -> None:
        """Hand in a reading work, when its turn comes; never if `session` has ended by then."""
        self._to_read.append((work, then, session))
        self._read_on(0.0)

    def _read_on(self, now: float) -> None:
        while self._to_read and self._reading < MAX_READING:
            work, then, session = self._to_read.popleft()
            if session is not None and not session.open:
                continue
            self._reading += 1
            try:
                self.submit(work, partial(self._found, then))
            except RemoteProtocolError as full:
                self._reading -= 1
                self.alarms.at(now, partial(then, full))

    def _found(self, then: Then, outcome: object, now: float) -> None:
        self._reading -= 1
        then(outcome, now)
        self._read_on(now)

    def _stored(self, key: str, size: int, then: Then, outcome: object, now: float) -> None:
        works, held = self._storing[key]
        if works > 1:
            self._storing[key] = works - 1, held - size
        else:
            del self._storing[key]
        then(outcome, now)

    def begin(self, session: Session) -> None:
        """A PULL or READ wants to wait; 429 when too many do."""
        if self._waiting[session] >= MAX_WAITING:
            problem = f"at most {MAX_WAITING} PULL and READ at once"
            raise RemoteProtocolError(429, "limit", problem)
        self._waiting[session] += 1

    def end(self, session: Session) -> None:
        """A PULL or READ is answered, or need not be any more."""
        if self._waiting[session] > 1:
            self._waiting[session] -= 1
        else:
            del self._waiting[session]

    def leave(self, session: Session) -> bool:
        """A session has ended; whether it was waiting for something."""
        return self._waiting.pop(session, 0) > 0

    def send(self, session: Session, ref: int, record: Record, deliveries: int = 0) -> None:
        """One record for the PULL or READ `ref`."""
        head = wire.Record(ref, record.seq, record.subject, record.sender, record.t, deliveries)
        self.sessions.send(session, wire.encode(head), record.body)

    def close(self, session: Session, ref: int, following: int, left: int) -> None:
        """The OK after the records."""
        self.sessions.send(session, wire.encode(wire.Ok(ref, seq=following, left=left)))

    def permit(self, session: Session, topic: TopicConfig, pattern: str = ">") -> None:
        """403 unless the session may subscribe to all that it would get."""
        for wanted in topic.subjects if pattern == ">" else [pattern]:
            self.sessions.permit(session, "subscribe", wanted)
            if any(subjects.overlaps(denied, wanted) for denied in session.rights.deny.subscribe):
                problem = f"subscribe {wanted}: denied in part; take a consumer with a filter"
                raise RemoteProtocolError(403, "denied", problem)

    def may(self, session: Session, topic: TopicConfig, pattern: str = ">") -> bool:
        try:
            self.permit(session, topic, pattern)
        except RemoteProtocolError:
            return False
        return True
