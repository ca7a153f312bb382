"""The topics of one broker, their consumers and their readers, by name and by subject."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bus import subjects
from bus.errors import RemoteProtocolError
from bus.routing.desk import Desk
from bus.routing.looking import Reading
from bus.routing.peers import Session
from bus.routing.pulling import Bury, Serving
from bus.signals import TopicConfig, TopicInfo
from bus.topics.consumer import Consumer
from bus.topics.work import StoredConsumer


class Topic:
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


class Topics:
    """What is at work. `bury` is for the consumers' dead letters."""

    def __init__(self, desk: Desk, bury: Bury) -> None:
        self._desk = desk
        self._bury = bury
        self._by_name: dict[str, Topic] = {}
        self._by_subject: subjects.SubjectTree[Topic] = subjects.SubjectTree()

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Topic | None:
        return self._by_name.get(name)

    def get(self, name: str) -> Topic:
        """A topic by name; 404 when there is none."""
        topic = self._by_name.get(name)
        if topic is None:
            raise RemoteProtocolError(404, "no_topic", f"there is no topic {name}")
        return topic

    def of(self, subject: str) -> Topic | None:
        """The one that stores what is published to a subject."""
        found = self._by_subject.match(subject) if self._by_name else None
        return found[0] if found else None

    def serving(self, session: Session, name: str, consumer: str) -> Serving:
        """A consumer that the session may pull for; 404 or 403."""
        topic = self.get(name)
        serving = topic.servings.get(consumer)
        if serving is None:
            self._desk.permit(session, topic.config)
            problem = f"topic {name} has no consumer {consumer}"
            raise RemoteProtocolError(404, "no_consumer", problem)
        self._desk.permit(session, topic.config, serving.consumer.config.filter)
        return serving

    @property
    def servings(self) -> Iterator[tuple[Topic, Serving]]:
        """All consumers, with their topic."""
        for topic in self._by_name.values():
            for serving in topic.servings.values():
                yield topic, serving

    def learn(self, info: TopicInfo, now: float) -> bool:
        """What a topic is and holds now; whether it is new or was changed."""
        topic = self._by_name.get(info.config.topic)
        if topic is None:
            topic = self._by_name[info.config.topic] = Topic(info, self._desk)
            old = None
        else:
            old = topic.config
        if old is None or old.subjects != info.config.subjects:
            for pattern in old.subjects if old is not None else ():
                self._by_subject.remove(pattern, topic)
            for pattern in info.config.subjects:
                self._by_subject.add(pattern, topic)
        more = info.last > topic.info.last
        topic.learn(info)
        if more:
            topic.reading.turn(now)
            for serving in topic.servings.values():
                serving.turn(now)
        return old != info.config

    def remove(self, name: str) -> None:
        """A topic is gone; who waits for it is told."""
        topic = self._by_name.pop(name, None)
        if topic is None:
            return
        for pattern in topic.config.subjects:
            self._by_subject.remove(pattern, topic)
        gone = RemoteProtocolError(404, "no_topic", f"topic {name} was removed")
        topic.reading.end(gone)
        for serving in topic.servings.values():
            serving.end(gone)

    def place(self, stored: StoredConsumer, now: float) -> Serving | None:
        """Set a consumer to work, or give the one at work its new settings."""
        topic = self._by_name.get(stored.config.topic)
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
