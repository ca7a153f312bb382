"""One consumer and the sessions that pull for it: who gets what, and when it is remembered.

Records go out before their delivery is on the disk: if the broker is killed in between, they come again
and count one delivery less. What is settled is on the disk before its OK.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bus import wire
from bus.errors import RemoteProtocolError
from bus.routing.alarms import Alarm
from bus.routing.desk import PAGE_BYTES, Desk
from bus.routing.peers import Session
from bus.signals import ConsumerInfo, TopicInfo
from bus.topics.consumer import ACTS, Consumer
from bus.topics.work import Fetch, Fetched, Record, SaveConsumer, Then

SAVE = 0.05  # seconds until what nobody waits for is remembered
AGAIN = 1.0  # seconds until what the store would not take is tried again
MAX_BURYING = 8  # dead letters of one consumer under way at once
MAX_SETTLING = 16_384  # SETTLEs of one consumer that wait for their OK

# Publishes a dead letter of a consumer; calls back when it stands where it belongs, or with the error.
Bury = Callable[[Consumer, Record, Then], None]


@dataclass(slots=True, eq=False)
class Pull:
    session: Session
    ref: int
    n: int
    until: float  # monotonic seconds


class Serving:
    """A consumer at work. `info` is that of its topic, kept up to date by who owns both."""

    def __init__(self, consumer: Consumer, info: TopicInfo, desk: Desk, bury: Bury) -> None:
        self.consumer = consumer
        self.info = info
        self._desk = desk
        self._bury = bury
        self._pulls: deque[Pull] = deque()
        self._fetching = False
        self._burying: set[int] = set()
        self._gone = False
        self._alarm = Alarm(desk.alarms, self.turn)
        self._save = Alarm(desk.alarms, self.save)
        self._unsaved = False
        self._saving = False
        self._hurry = False  # what is unsaved has waited long enough
        self._settling: list[tuple[Session, int]] = []  # who wants an OK when it is saved

    def describe(self) -> ConsumerInfo:
        return self.consumer.info(self.info.last)

    def pull(self, session: Session, command: wire.Pull, now: float) -> None:
        """Answer a PULL, now or when there is something or its time is over."""
        self._desk.begin(session)
        self._pulls.append(Pull(session, command.id, command.n, now + command.wait / 1000))
        self.turn(now)

    def settle(self, session: Session, command: wire.Settle, now: float) -> None:
        """Do what a SETTLE says; 400 for an act that is none."""
        if command.act not in ACTS:
            problem = f"SETTLE: act is one of {', '.join(ACTS)}, not {command.act!r}"
            raise RemoteProtocolError(400, "bad_request", problem)
        if command.id is not None and len(self._settling) >= MAX_SETTLING:
            problem = f"at most {MAX_SETTLING} SETTLE for one consumer at once"
            raise RemoteProtocolError(429, "limit", problem)
        for seq in command.seqs:
            self.consumer.settle(seq, command.act, command.delay / 1000, now)
        self._remember(now)
        if command.id is not None:
            self._settling.append((session, command.id))
            self._flush(now)
        self.turn(now)

    def turn(self, now: float) -> None:
        """Do what can be done now: bury, deliver, let go whose time is over."""
        if self._gone:
            return
        if self.consumer.wake(now):
            self._remember(now)
        for seq in self.consumer.doomed:
            if len(self._burying) < MAX_BURYING:
                self._exhume(seq)
        if self._pulls and not self._fetching:
            self._serve(now)
        self._alarm.set(self.consumer.next_due)
        if self._pulls and not self._fetching:  # else the outcome turns us
            self._alarm.set(min(pull.until for pull in self._pulls))

    def leave(self, session: Session) -> None:
        """A session has ended."""
        self._pulls = deque(pull for pull in self._pulls if pull.session is not session)

    def recheck(self, allowed: Callable[[Session], bool]) -> None:
        """Refuse whoever waits and is not allowed to any more."""
        for pull in [pull for pull in self._pulls if not allowed(pull.session)]:
            self._pulls.remove(pull)
            self._fail(
                pull, RemoteProtocolError(403, "denied", "the rights of this key have changed")
            )

    def end(self, error: RemoteProtocolError) -> None:
        """The consumer is removed: nobody gets anything any more."""
        self._gone = True
        self._fail_all(error)
        settling, self._settling = self._settling, []
        for session, ref in settling:
            self._desk.sessions.error(session, error, ref)

    def save(self, now: float) -> None:
        """Have what has changed remembered; nobody waits for it."""
        self._hurry = True
        self._flush(now)

    def _flush(self, now: float) -> None:
        """Write the state if it is time to; one at a time, the next takes all that came meanwhile."""
        if self._saving or self._gone or not (self._settling or (self._hurry and self._unsaved)):
            return
        settling, self._settling = self._settling, []
        self._saving, self._unsaved, self._hurry = True, False, False
        work = SaveConsumer(self.consumer.number, self.consumer.state)
        try:
            self._desk.submit(work, partial(self._saved, settling))
        except RemoteProtocolError as full:
            self._saved(settling, full, now)

    def _saved(self, settling: list[tuple[Session, int]], outcome: object, now: float) -> None:
        self._saving = False
        if isinstance(outcome, RemoteProtocolError):
            self._unsaved = True
            self._save.set(now + AGAIN)
            for session, ref in settling:
                self._desk.sessions.error(session, outcome, ref)
            return
        for session, ref in settling:
            self._desk.sessions.ok(session, ref)
        self._flush(now)

    def _remember(self, now: float) -> None:
        self._unsaved = True
        self._save.set(now + SAVE)

    # Delivering.

    def _serve(self, now: float) -> None:
        demand = min(wire.MAX_PULL, sum(pull.n for pull in self._pulls))
        again, fresh = self.consumer.wanted(demand)
        if self.consumer.cursor >= self.info.last:
            fresh = 0
        if not again and not fresh:
            self._let_go(now)
            return
        config = self.consumer.config
        work = Fetch(config.topic, again, self.consumer.cursor, fresh, config.filter, PAGE_BYTES)
        self._fetching = True
        self._desk.read(work, self._fetched)

    def _fetched(self, outcome: Fetched | RemoteProtocolError, now: float) -> None:
        self._fetching = False
        if self._gone:
            return
        if isinstance(outcome, RemoteProtocolError):
            self._fail_all(outcome)
            return
        records = deque(self.consumer.receive(outcome))
        while self._pulls and records:
            pull = self._pulls.popleft()
            for record in [records.popleft() for _ in range(min(pull.n, len(records)))]:
                deliveries = self.consumer.deliver(record.seq, now)
                self._desk.send(pull.session, pull.ref, record, deliveries)
            self._answer(pull)
        if not records:
            self.consumer.skip(outcome.cursor)
        self._remember(now)
        self.turn(now)

    def _let_go(self, now: float) -> None:
        """Nothing is there: answer those who do not want to wait any longer."""
        waiting: deque[Pull] = deque()
        for pull in self._pulls:
            if pull.until > now:
                waiting.append(pull)
            else:
                self._answer(pull)
        self._pulls = waiting

    def _answer(self, pull: Pull) -> None:
        self._desk.end(pull.session)
        cursor = self.consumer.cursor
        self._desk.close(pull.session, pull.ref, cursor + 1, max(0, self.info.last - cursor))

    def _fail(self, pull: Pull, error: RemoteProtocolError) -> None:
        self._desk.end(pull.session)
        self._desk.sessions.error(pull.session, error, pull.ref)

    def _fail_all(self, error: RemoteProtocolError) -> None:
        pulls, self._pulls = self._pulls, deque()
        for pull in pulls:
            self._fail(pull, error)

    # Dead letters.

    def _exhume(self, seq: int) -> None:
        """Look for a record that is to be buried."""
        if seq not in self._burying:
            self._burying.add(seq)
            work = Fetch(self.consumer.config.topic, [seq], 0, 0, ">", PAGE_BYTES)
            self._desk.read(work, partial(self._exhumed, seq))

    def _exhumed(self, seq: int, outcome: Fetched | RemoteProtocolError, now: float) -> None:
        if self._gone:
            return
        if isinstance(outcome, RemoteProtocolError):
            self._buried(seq, outcome, now)
        elif outcome.again:
            self._bury(self.consumer, outcome.again[0], partial(self._buried, seq))
        else:
            self._burying.discard(seq)
            self.consumer.forget(seq)
            self._remember(now)
            self.turn(now)

    def _buried(self, seq: int, outcome: object, now: float) -> None:
        if self._gone:
            return
        if isinstance(outcome, RemoteProtocolError):
            self._desk.alarms.at(now + AGAIN, partial(self._again, seq))
            return
        self._burying.discard(seq)
        self.consumer.bury(seq)
        self._remember(now)
        self.turn(now)

    def _again(self, seq: int, now: float) -> None:
        self._burying.discard(seq)
        self.turn(now)
