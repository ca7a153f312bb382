"""Durable topics at the broker: what is published to them is stored, pulled, read and settled.

Decides here and in the consumers; everything on the disk goes through the journal and is answered when
its outcome comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import msgspec

from bus import signals, subjects, wire
from bus.errors import RemoteProtocolError
from bus.routing.alarms import Alarm
from bus.routing.desk import Desk
from bus.routing.looking import Reading
from bus.routing.parts import Answer, Handler, Part, Question
from bus.routing.peers import Session
from bus.routing.publishing import Publishing
from bus.routing.pulling import Serving
from bus.routing.sessions import Sessions
from bus.signals import ConsumerConfig, TopicConfig, TopicInfo
from bus.topics import rules
from bus.topics.consumer import Consumer
from bus.topics.work import (
    Append,
    Appended,
    Expire,
    Journal,
    PutConsumer,
    PutTopic,
    Record,
    RemoveConsumer,
    RemoveTopic,
    StoredConsumer,
    Then,
)  # fmt: skip

SWEEP = 1.0  # seconds between looks for what is too old
SWEEP_IDS = 10.0  # the same when there are only message ids to forget


class _Topic:
    """One topic, its consumers by name and its readers."""

    def __init__(self, info: TopicInfo, desk: Desk) -> None:
        self.info = info
        self.servings: dict[str, Serving] = {}
        self.reading = Reading(info, desk)

    @property
    def config(self) -> TopicConfig:
        return self.info.config

    def learn(self, info: TopicInfo) -> None:
        self.info = self.reading.info = info
        for serving in self.servings.values():
            serving.info = info

    def describe(self) -> TopicInfo:
        return msgspec.structs.replace(self.info, consumers=len(self.servings))


class Durable(Part):
    """The topics of one broker. `now` is monotonic seconds."""

    def __init__(
        self, sessions: Sessions, publishing: Publishing, journal: Journal, now: float
    ) -> None:
        """Take up what the journal has found on the disk, and what is published from now on."""
        self._sessions = sessions
        self._publishing = publishing
        self._journal = journal
        self._desk = Desk(sessions, journal)
        self._topics: dict[str, _Topic] = {}
        self._by_subject: subjects.SubjectTree[_Topic] = subjects.SubjectTree()
        self._claims: dict[str, TopicConfig] = {}  # topics that are being made or changed
        self._sweep = Alarm(self._desk.alarms, self._expire)
        for info in journal.contents.topics:
            self._learn(info, now)
        for stored in journal.contents.consumers:
            self._place(stored, now)
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
        return {
            signals.TOPICS: self._list_topics,
            signals.TOPIC_PUT: self._put_topic,
            signals.TOPIC_REMOVE: self._remove_topic,
            signals.CONSUMERS: self._list_consumers,
            signals.CONSUMER_PUT: self._put_consumer,
            signals.CONSUMER_REMOVE: self._remove_consumer,
        }

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
        for _, serving in self._each():
            serving.save(now)

    def infos(self) -> list[TopicInfo]:
        """All topics."""
        return [topic.describe() for topic in self._topics.values()]

    # Publishing.

    def capture(
        self, session: Session | None, sender: str, command: wire.Publish, body: bytes
    ) -> bool:
        """Store what a topic has the subject of; see `bus.routing.publishing.Capture`."""
        if command.mid and command.n != 1:
            problem = "PUBLISH: mid is for one message, not for a batch"
            raise RemoteProtocolError(400, "bad_request", problem)
        topic = self._of(command.s)
        if topic is None:
            return False
        bodies = [body] if command.n == 1 else wire.split(body, command.n)
        t = int(self._sessions.clock() * 1000)
        work = Append(topic.config.topic, sender, command.s, bodies, t, command.mid)
        if session is None or command.id is None:
            self._desk.submit(work, _nobody_asks)
            return False
        self._desk.submit(work, partial(self._stored, session, command.id))
        return True

    def _of(self, subject: str) -> _Topic | None:
        found = self._by_subject.match(subject) if self._topics else None
        return found[0] if found else None

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
        topic = self._of(subject)

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
        self._serving(session, command.topic, command.consumer).pull(session, command, now)

    def on_settle(self, session: Session, command: wire.Settle, _body: bytes, now: float) -> None:
        self._serving(session, command.topic, command.consumer).settle(session, command, now)

    def on_read(self, session: Session, command: wire.Read, _body: bytes, now: float) -> None:
        topic = self._topic(command.topic)
        self._desk.permit(session, topic.config)
        topic.reading.read(session, command, now)

    def _topic(self, name: str) -> _Topic:
        topic = self._topics.get(name)
        if topic is None:
            raise RemoteProtocolError(404, "no_topic", f"there is no topic {name}")
        return topic

    def _serving(self, session: Session, name: str, consumer: str) -> Serving:
        """A consumer that the session may pull for."""
        topic = self._topic(name)
        serving = topic.servings.get(consumer)
        if serving is None:
            self._desk.permit(session, topic.config)
            problem = f"topic {name} has no consumer {consumer}"
            raise RemoteProtocolError(404, "no_consumer", problem)
        self._desk.permit(session, topic.config, serving.consumer.config.filter)
        return serving

    # Requests to the broker: topics.

    def _list_topics(self, question: Question) -> object:
        topics = self._topics.values()
        readable = [t.describe() for t in topics if self._desk.may(question.session, t.config)]
        return signals.Topics(readable)

    def _put_topic(self, question: Question) -> object:
        config = signals.unpack(question.body, TopicConfig)
        rules.check_topic(config)
        if len({*self._topics, *self._claims, config.topic}) > rules.MAX_TOPICS:
            raise RemoteProtocolError(429, "limit", f"at most {rules.MAX_TOPICS} topics")
        self._check_subjects(config)
        self._claims[config.topic] = config
        try:
            self._desk.submit(PutTopic(config), partial(self._topic_put, question, config))
        except RemoteProtocolError:
            del self._claims[config.topic]
            raise
        return None

    def _check_subjects(self, config: TopicConfig) -> None:
        """409 when another topic has one of its subjects, or its own dead letters would come back."""
        taken = {name: topic.config for name, topic in self._topics.items()} | self._claims
        if config.topic in self._claims:
            problem = f"topic {config.topic} is being changed by another; ask again"
            raise RemoteProtocolError(409, "conflict", problem)
        for name, other in taken.items():
            for theirs in other.subjects if name != config.topic else ():
                for ours in config.subjects:
                    if subjects.overlaps(ours, theirs):
                        problem = f"{ours} is stored by topic {name} already (as {theirs})"
                        raise RemoteProtocolError(409, "conflict", problem)
        own = self._topics.get(config.topic)
        for serving in own.servings.values() if own is not None else ():
            try:
                rules.check_consumer(serving.consumer.config, config)
            except RemoteProtocolError as error:
                raise RemoteProtocolError(409, "conflict", str(error)) from None

    def _topic_put(
        self, question: Question, config: TopicConfig, outcome: object, now: float
    ) -> None:
        self._claims.pop(config.topic, None)
        if isinstance(outcome, TopicInfo):
            self._learn(outcome, now)
            self._sweep.set(now + SWEEP)
        self._answer(question, outcome)

    def _remove_topic(self, question: Question) -> object:
        name = signals.unpack(question.body, signals.TopicName).topic
        self._topic(name)
        self._desk.submit(RemoveTopic(name), partial(self._topic_removed, question, name))
        return None

    def _topic_removed(self, question: Question, name: str, outcome: object, now: float) -> None:
        topic = self._topics.get(name)
        if topic is not None and not isinstance(outcome, RemoteProtocolError):
            del self._topics[name]
            for pattern in topic.config.subjects:
                self._by_subject.remove(pattern, topic)
            gone = RemoteProtocolError(404, "no_topic", f"topic {name} was removed")
            topic.reading.end(gone)
            for serving in topic.servings.values():
                serving.end(gone)
            self._sweep.set(now)
        self._answer(question, outcome)

    def _learn(self, info: TopicInfo, now: float) -> None:
        """A topic is new, or has changed, or holds more or less than before."""
        topic = self._topics.get(info.config.topic)
        if topic is None:
            topic = self._topics[info.config.topic] = _Topic(info, self._desk)
            self._sweep.set(now + SWEEP)
            old: list[str] = []
        else:
            old = topic.config.subjects
        if old != info.config.subjects:
            for pattern in old:
                self._by_subject.remove(pattern, topic)
            for pattern in info.config.subjects:
                self._by_subject.add(pattern, topic)
        more = info.last > topic.info.last
        topic.learn(info)
        if more:
            topic.reading.turn(now)
            for serving in topic.servings.values():
                serving.turn(now)

    # Requests to the broker: consumers.

    def _list_consumers(self, question: Question) -> object:
        if question.body and question.body != _NOTHING:
            wanted = self._topic(signals.unpack(question.body, signals.TopicName).topic)
            topics = [wanted]
        else:
            topics = list(self._topics.values())
        return signals.Consumers([
            serving.describe()
            for topic in topics
            for serving in topic.servings.values()
            if self._desk.may(question.session, topic.config, serving.consumer.config.filter)
        ])  # fmt: skip

    def _put_consumer(self, question: Question) -> object:
        config = signals.unpack(question.body, ConsumerConfig)
        topic = self._topic(config.topic)
        rules.check_consumer(config, topic.config)
        self._desk.permit(question.session, topic.config, config.filter)
        if config.dead:
            self._sessions.permit(question.session, "publish", config.dead)
        found = topic.servings.get(config.consumer)
        if found is None and len(topic.servings) >= rules.MAX_CONSUMERS:
            problem = f"at most {rules.MAX_CONSUMERS} consumers of a topic"
            raise RemoteProtocolError(429, "limit", problem)
        if found is not None:
            self._desk.permit(question.session, topic.config, found.consumer.config.filter)
            if not rules.same_place(found.consumer.config, config):
                problem = (
                    f"consumer {config.topic}/{config.consumer} has begun elsewhere or with another "
                    "filter; remove it first"
                )
                raise RemoteProtocolError(409, "conflict", problem)
        self._desk.submit(PutConsumer(config), partial(self._consumer_put, question))
        return None

    def _consumer_put(
        self, question: Question, outcome: StoredConsumer | RemoteProtocolError, now: float
    ) -> None:
        if isinstance(outcome, RemoteProtocolError):
            self._answer(question, outcome)
            return
        serving = self._place(outcome, now)
        self._answer(question, serving.describe() if serving is not None else signals.Done())

    def _place(self, stored: StoredConsumer, now: float) -> Serving | None:
        """Set a consumer to work, or give the one at work its new settings."""
        topic = self._topics.get(stored.config.topic)
        if topic is None:  # removed meanwhile
            return None
        serving = topic.servings.get(stored.config.consumer)
        if serving is not None and serving.consumer.number == stored.number:
            serving.consumer.configure(stored.config)
        else:
            consumer = Consumer(stored, now)
            serving = Serving(consumer, topic.info, self._desk, self._bury)
            topic.servings[stored.config.consumer] = serving
            self._desk.alarms.at(now, serving.turn)
        return serving

    def _remove_consumer(self, question: Question) -> object:
        query = signals.unpack(question.body, signals.ConsumerName)
        serving = self._serving(question.session, query.topic, query.consumer)
        work = RemoveConsumer(serving.consumer.number)
        self._desk.submit(work, partial(self._consumer_removed, question, query, serving))
        return None

    def _consumer_removed(
        self,
        question: Question,
        query: signals.ConsumerName,
        serving: Serving,
        outcome: object,
        _now: float,
    ) -> None:
        topic = self._topics.get(query.topic)
        if not isinstance(outcome, RemoteProtocolError) and topic is not None:
            if topic.servings.get(query.consumer) is serving:
                del topic.servings[query.consumer]
            what = f"consumer {query.topic}/{query.consumer} was removed"
            serving.end(RemoteProtocolError(404, "no_consumer", what))
        self._answer(question, outcome)

    # The rest.

    def _answer(self, question: Question, outcome: object) -> None:
        if isinstance(outcome, RemoteProtocolError):
            self._sessions.error(question.session, outcome, question.ref)
        else:
            value = signals.Done() if outcome is None else outcome
            self._sessions.answer(question.session, question.ref, value)

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
            ages = any(topic.config.max_age for topic in self._topics.values())
            self._sweep.set(now + (SWEEP if ages else SWEEP_IDS))

    def _each(self) -> Iterator[tuple[_Topic, Serving]]:
        for topic in self._topics.values():
            for serving in topic.servings.values():
                yield topic, serving

    def _leave(self, session: Session, _num: int, _reason: str) -> None:
        if not self._desk.leave(session):
            return
        for topic in self._topics.values():
            topic.reading.leave(session)
        for _, serving in self._each():
            serving.leave(session)

    def _recheck(self, _session: Session) -> None:
        """Rights have changed: nobody waits for what it may not get."""
        for topic in self._topics.values():
            topic.reading.recheck(partial(self._may, topic, ">"))
        for topic, serving in self._each():
            serving.recheck(partial(self._may, topic, serving.consumer.config.filter))

    def _may(self, topic: _Topic, pattern: str, session: Session) -> bool:
        return self._desk.may(session, topic.config, pattern)


_NOTHING = signals.pack(None)


def _nobody_asks(_outcome: object, _now: float) -> None:
    """What is published without an id is not answered."""
