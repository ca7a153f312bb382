"""Durable topics at the broker: what is published to them is stored, pulled, read and settled.

Decides here and in the consumers; everything on the disk goes through the journal and is answered when
its outcome comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bus import wire
from bus.errors import RemoteProtocolError
from bus.routing.alarms import Alarm
from bus.routing.arranging import Arranging
from bus.routing.desk import Desk
from bus.routing.parts import Answer, Handler, Part
from bus.routing.peers import Session
from bus.routing.publishing import Publishing
from bus.routing.sessions import Sessions
from bus.routing.topics import Topics
from bus.signals import TopicConfig, TopicInfo
from bus.topics import rules
from bus.topics.consumer import Consumer
from bus.topics.work import Append, Appended, Expire, Journal, Record, Then

SWEEP = 1.0  # seconds between looks for what is too old
SWEEP_IDS = 10.0  # the same when there are only message ids to forget


class Durable(Part):
    """Pulls, settles, reads and captures. `now` is monotonic seconds."""

    def __init__(
        self, sessions: Sessions, publishing: Publishing, journal: Journal, now: float
    ) -> None:
        """Take up what the journal has found on the disk, and what is published from now on."""
        self._sessions = sessions
        self._publishing = publishing
        self._journal = journal
        self._desk = Desk(sessions, journal)
        self._topics = Topics(self._desk, self._bury)
        self._sweep = Alarm(self._desk.alarms, self._expire)
        self._arranging = Arranging(self._topics, self._desk, self._sweep.set)
        for info in journal.contents.topics:
            self._learn(info, now)
        for stored in journal.contents.consumers:
            self._topics.place(stored, now)
        journal.changed = self._learn
        publishing.capture = self.capture
        sessions.leaving.append(self._leave)
        sessions.changed.append(self._recheck)

    @property
    def handlers(self) -> Mapping[type[wire.Command], Handler]:
        return {
            wire.Pull: self.on_pull,
            wire.Settle: self.on_settle,
            wire.Read: self.on_read,
        }

    @property
    def answers(self) -> Mapping[str, Answer]:
        return self._arranging.answers

    @property
    def next_deadline(self) -> float | None:
        return self._desk.alarms.next

    def handle_timer(self, now: float) -> None:
        self._desk.alarms.ring(now)

    @property
    def busy(self) -> bool:
        return self._journal.busy

    def drain(self, now: float) -> None:
        """The broker stops: have all that is not yet remembered written."""
        for _, serving in self._topics.servings:
            serving.save(now)

    def infos(self) -> list[TopicInfo]:
        """All topics."""
        return [topic.describe() for topic in self._topics]

    # Publishing.

    def capture(
        self, session: Session | None, sender: str, command: wire.Publish, body: bytes
    ) -> bool:
        """Store what a topic has the subject of; see `bus.routing.publishing.Capture`."""
        if command.mid and command.n != 1:
            problem = "PUBLISH: mid is for one message, not for a batch"
            raise RemoteProtocolError(400, "bad_request", problem)
        topic = self._topics.of(command.s)
        if topic is None:
            return False
        bodies = [body] if command.n == 1 else wire.split(body, command.n)
        t = int(self._sessions.clock() * 1000)
        work = Append(topic.config.topic, sender, command.s, bodies, t, command.mid)
        if session is None:
            self._desk.submit(work, _nobody_asks)
            return False
        if command.id is None:
            self._desk.store(sender, work, _nobody_asks)
            return False
        self._desk.store(sender, work, partial(self._stored, session, command.id))
        return True

    def _stored(
        self, session: Session, ref: int, outcome: Appended | RemoteProtocolError, _now: float
    ) -> None:
        if isinstance(outcome, RemoteProtocolError):
            self._sessions.error(session, outcome, ref)
        else:
            self._sessions.send(session, wire.encode(wire.Ok(ref, outcome.seq, outcome.dup)))

    def _bury(self, consumer: Consumer, record: Record, done: Then) -> None:
        """Publish what could not be delivered, once it is stored where a topic wants it."""
        subject, sender = rules.dead_subject(consumer.config), self._sessions.info.key
        topic = self._topics.of(subject)

        def stored(outcome: object, now: float) -> None:
            if not isinstance(outcome, RemoteProtocolError):
                self._publishing.publish(sender, subject, 1, record.body)
            done(outcome, now)

        if topic is None:
            self._desk.alarms.at(0.0, partial(stored, None))
            return
        mid = f"{consumer.config.topic} {consumer.number} {record.seq}"
        t = int(self._sessions.clock() * 1000)
        work = Append(topic.config.topic, sender, subject, [record.body], t, mid)
        try:
            self._desk.submit(work, stored)
        except RemoteProtocolError as full:
            self._desk.alarms.at(0.0, partial(stored, full))

    # Commands of sessions.

    def on_pull(self, session: Session, command: wire.Pull, _body: bytes, now: float) -> None:
        self._topics.serving(session, command.topic, command.consumer).pull(session, command, now)

    def on_settle(self, session: Session, command: wire.Settle, _body: bytes, now: float) -> None:
        self._topics.serving(session, command.topic, command.consumer).settle(session, command, now)

    def on_read(self, session: Session, command: wire.Read, _body: bytes, now: float) -> None:
        topic = self._topics.get(command.topic)
        self._desk.permit(session, topic.config)
        topic.reading.read(session, command, now)

    # What time and others change.

    def _learn(self, info: TopicInfo, now: float) -> None:
        if self._topics.learn(info, now):
            self._sweep.set(now + SWEEP)

    def _expire(self, now: float) -> None:
        try:
            work = Expire(int(self._sessions.clock() * 1000))
            self._desk.submit(work, self._expired)
        except RemoteProtocolError:
            self._sweep.set(now + SWEEP)

    def _expired(self, outcome: object, now: float) -> None:
        if outcome is True:
            self._sweep.set(now)
        elif self._topics:
            ages = any(topic.config.max_age for topic in self._topics)
            self._sweep.set(now + (SWEEP if ages else SWEEP_IDS))

    def _leave(self, session: Session, _num: int, _reason: str) -> None:
        if not self._desk.leave(session):
            return
        for topic in self._topics:
            topic.reading.leave(session)
        for _, serving in self._topics.servings:
            serving.leave(session)

    def _recheck(self, _session: Session) -> None:
        """Rights have changed: nobody waits for what it may not get."""
        for topic in self._topics:
            topic.reading.recheck(partial(self._may, topic.config, ">"))
        for topic, serving in self._topics.servings:
            pattern = serving.consumer.config.filter
            serving.recheck(partial(self._may, topic.config, pattern))

    def _may(self, topic: TopicConfig, pattern: str, session: Session) -> bool:
        return self._desk.may(session, topic, pattern)


def _nobody_asks(_outcome: object, _now: float) -> None:
    """What is published without an id is not answered."""
