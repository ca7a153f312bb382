"""The requests to the broker about durable topics: they are listed, made, changed and removed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bus import signals, subjects
from bus.errors import RemoteProtocolError
from bus.routing import pages
from bus.routing.desk import Desk
from bus.routing.parts import Answer, Question
from bus.routing.pulling import Serving
from bus.routing.topics import Topics
from bus.signals import ConsumerConfig, TopicConfig, TopicInfo
from bus.topics import rules
from bus.topics.work import PutConsumer, PutTopic, RemoveConsumer, RemoveTopic, StoredConsumer


class Arranging:
    """Answers when the change is on the disk. `sweep` has what a removed topic leaves cleared away."""

    def __init__(self, topics: Topics, desk: Desk, sweep: Callable[[float], None]) -> None:
        self._topics = topics
        self._desk = desk
        self._sweep = sweep
        self._claims: dict[str, TopicConfig] = {}  # topics that are being made or changed

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
    def _room(self) -> int:
        return self._desk.sessions.limits.payload

    # Topics.

    def _list_topics(self, question: Question) -> object:
        query = pages.asked(question.body, signals.PageQuery)
        readable = (
            (t.config.topic, t.describe())
            for t in self._topics
            if self._desk.may(question.session, t.config)
        )
        return signals.Topics(*pages.page(readable, query, self._room))

    def _put_topic(self, question: Question) -> object:
        config = signals.unpack(question.body, TopicConfig)
        rules.check_topic(config)
        if (
            len({*(t.config.topic for t in self._topics), *self._claims, config.topic})
            > rules.MAX_TOPICS
        ):
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
        taken = {t.config.topic: t.config for t in self._topics} | self._claims
        if config.topic in self._claims:
            problem = f"topic {config.topic} is being changed by another; ask again"
            raise RemoteProtocolError(409, "conflict", problem)
        for name, other in taken.items():
            for theirs in other.subjects if name != config.topic else ():
                for ours in config.subjects:
                    if subjects.overlaps(ours, theirs):
                        problem = f"{ours} is stored by topic {name} already (as {theirs})"
                        raise RemoteProtocolError(409, "conflict", problem)
        own = self._topics.find(config.topic)
        for serving in own.servings.values() if own is not None else ():
            try:
                rules.check_consumer(serving.consumer.config, config)
            except RemoteProtocolError as error:
                raise RemoteProtocolError(409, "conflict", str(error)) from None

    def _topic_put(
        self, question: Question, config: TopicConfig, outcome: object, now: float
    ) -> None:
        self._claims.pop(config.topic, None)
        if isinstance(outcome, TopicInfo):  # it may have been removed and made in one transaction
            self._topics.learn(outcome, now)
            self._sweep(now)
        self._answer(question, outcome)

    def _remove_topic(self, question: Question) -> object:
        name = signals.unpack(question.body, signals.TopicName).topic
        self._topics.get(name)
        self._desk.submit(RemoveTopic(name), partial(self._topic_removed, question, name))
        return None

    def _topic_removed(self, question: Question, name: str, outcome: object, now: float) -> None:
        if not isinstance(outcome, RemoteProtocolError):
            self._topics.remove(name)
            self._sweep(now)
        self._answer(question, outcome)

    # Consumers.

    def _list_consumers(self, question: Question) -> object:
        query = pages.asked(question.body, signals.ConsumersQuery)
        topics = self._topics if query.topic is None else [self._topics.get(query.topic)]
        readable = (
            (f"{topic.config.topic} {name}", serving.describe())
            for topic in topics
            for name, serving in topic.servings.items()
            if self._desk.may(question.session, topic.config, serving.consumer.config.filter)
        )
        return signals.Consumers(*pages.page(readable, query, self._room))

    def _put_consumer(self, question: Question) -> object:
        config = signals.unpack(question.body, ConsumerConfig)
        topic = self._topics.get(config.topic)
        rules.check_consumer(config, topic.config)
        self._desk.permit(question.session, topic.config, config.filter)
        if config.dead:
            self._desk.sessions.permit(question.session, "publish", config.dead)
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
        serving = self._topics.place(outcome, now)
        self._answer(question, serving.describe() if serving is not None else signals.Done())

    def _remove_consumer(self, question: Question) -> object:
        query = signals.unpack(question.body, signals.ConsumerName)
        serving = self._topics.serving(question.session, query.topic, query.consumer)
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
        topic = self._topics.find(query.topic)
        if not isinstance(outcome, RemoteProtocolError) and topic is not None:
            if topic.servings.get(query.consumer) is serving:
                del topic.servings[query.consumer]
            what = f"consumer {query.topic}/{query.consumer} was removed"
            serving.end(RemoteProtocolError(404, "no_consumer", what))
        self._answer(question, outcome)

    def _answer(self, question: Question, outcome: object) -> None:
        if isinstance(outcome, RemoteProtocolError):
            self._desk.sessions.error(question.session, outcome, question.ref)
        else:
            value = signals.Done() if outcome is None else outcome
            self._desk.sessions.answer(question.session, question.ref, value)
