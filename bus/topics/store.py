"""The store of durable topics: carries out works on the database, many in one transaction.

What is counted per topic (first and last sequence, messages, bytes) is held in memory and written with
every change; a transaction that fails leaves both as they were.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from bus.errors import RemoteProtocolError
from bus.signals import ConsumerConfig, TopicInfo
from bus.topics import reading, retention, rules, schema
from bus.topics.extent import Extent
from bus.topics.schema import BadRow
from bus.topics.scrub import open_any
from bus.topics.work import (
    READS,
    Append,
    Appended,
    ConsumerState,
    Contents,
    Expire,
    Fetch,
    PutConsumer,
    PutTopic,
    ReadPage,
    RemoveConsumer,
    RemoveTopic,
    SaveConsumer,
    StoredConsumer,
    Work,
)  # fmt: skip


class Store:
    """The database in `path`, made when the first topic is. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open and look through what is there; `StoreError` when it cannot be used."""
        self.path = path
        self._topics: dict[str, Extent] = {}
        self._consumers: dict[int, tuple[int, ConsumerConfig]] = {}  # topic number, by own number
        self._leftover: list[int] = []  # numbers of removed topics that still have records
        self._rows: list[tuple[object, ...]] = []  # records to insert
        self._ids: dict[tuple[int, bytes], tuple[int, int]] = {}  # to insert: sequence and time
        self._touched: dict[int, Extent] = {}
        self._states: dict[int, ConsumerState] = {}  # of consumers, to be written
        self.changed: list[TopicInfo] = []  # by the last works that were carried out
        self._failed = False  # the last transaction, and it is not undone
        self.problem = ""  # why the last transaction failed; empty: it did not
        self._writers: dict[type, Callable[[Any], object]] = {
            Append: self._append, SaveConsumer: self._save_consumer, PutTopic: self._put_topic,
            RemoveTopic: self._remove_topic, PutConsumer: self._put_consumer,
            RemoveConsumer: self._remove_consumer, Expire: self._expire,
        }  # fmt: skip
        self._db = open_any(path)
        if self._db is not None:
            self._load()

    @property
    def contents(self) -> Contents:
        """All topics and consumers as they are on the disk."""
        if self._db is None:
            return Contents()
        consumers = []
        for row in self._db.execute("SELECT * FROM consumers ORDER BY number"):
            config, state = schema.read_consumer(row)
            consumers.append(StoredConsumer(row[0], config, state))
        return Contents([self._info(topic) for topic in self._topics.values()], consumers)

    def carry_out(self, works: Sequence[Work]) -> list[object]:
        """Do the works, the writing ones in one transaction and before the reading ones.

        Gives the outcome of each, a `RemoteProtocolError` for what was refused. When the transaction
        fails, nothing is written and every writing work has the reason: 507 when there is no room.
        """
        self.changed = []
        outcomes: list[object] = [None] * len(works)
        writes = [i for i, work in enumerate(works) if not isinstance(work, READS)]
        try:
            if self._failed:  # what is in memory may not be what is on the disk
                self._recover()
            if writes:
                self._transact(works, writes, outcomes)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing of it may stay
            failure = self._fail(error)
            for index in writes:
                outcomes[index] = failure
        for index, work in enumerate(works):
            if isinstance(work, READS):
                outcomes[index] = self._read(work)
        return outcomes

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    # Transactions.

    def _transact(self, works: Sequence[Work], writes: list[int], outcomes: list[object]) -> None:
        if self._db is None:
            if not any(isinstance(works[i], PutTopic) for i in writes):
                for index in writes:
                    outcomes[index] = _no_topic("of any name")
                return
            self._db = schema.create(self.path)
        self._db.execute("BEGIN IMMEDIATE")
        now = 0
        for index in writes:
            work = works[index]
            now = max(now, getattr(work, "t", 0))
            try:
                outcomes[index] = self._writers[type(work)](work)
            except RemoteProtocolError as refused:
                outcomes[index] = refused
        self._flush(now)
        self._db.execute("COMMIT")
        self.problem = ""

    def _flush(self, now: int) -> None:
        """Write what the works have gathered, and drop what has no place any more."""
        db = self._database
        self._insert()
        for topic in self._touched.values():
            if rules.over(topic.config, topic.messages, topic.bytes):
                self._drop(topic, now, None)
            self._put_row(schema.topic_row(topic.number, topic.config, topic.counts))
            self.changed.append(self._info(topic))
        self._touched.clear()
        for number, state in self._states.items():
            if number in self._consumers:
                row = schema.consumer_row(number, *self._consumers[number], state)
                db.execute("INSERT OR REPLACE INTO consumers VALUES (?, ?, ?, ?, ?)", row)
        self._states.clear()

    def _insert(self) -> None:
        self._database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", self._rows)
        self._rows.clear()
        if self._ids:
            rows = [(*key, *value) for key, value in self._ids.items()]
            self._database.executemany("INSERT OR REPLACE INTO ids VALUES (?, ?, ?, ?)", rows)
            self._ids.clear()

    def _fail(self, error: Exception) -> RemoteProtocolError:
        """Undo a transaction that failed, now or, when that fails as well, before the next."""
        failure = _failure(error)
        self.changed, self.problem = [], str(failure)
        self._failed = True
        with contextlib.suppress(sqlite3.Error, BadRow):
            self._recover()
        return failure

    def _recover(self) -> None:
        """Forget a transaction that failed; what is in memory is what is on the disk then."""
        self._rows.clear()
        self._ids.clear()
        self._touched.clear()
        self._states.clear()
        if self._db is None:
            self._failed = False
            return
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        with contextlib.suppress(sqlite3.Error):
            # Its space is used from the start again, so that a full disk still takes small things.
            self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        self._load()
        self._failed = False

    def _load(self) -> None:
        db = self._database
        self._topics, self._leftover = {}, []
        for row in db.execute("SELECT * FROM topics"):
            if schema.is_removed(row):
                self._leftover.append(row[0])
                continue
            config = schema.read_topic(row)
            self._topics[config.topic] = Extent(row[0], config, *row[3:8])
        self._consumers = {
            row[0]: (row[1], schema.read_consumer(row)[0])
            for row in db.execute("SELECT * FROM consumers")
        }

    @property
    def _database(self) -> sqlite3.Connection:
        assert self._db is not None  # noqa: S101 - callers run after it was made
        return self._db

    def _topic(self, name: str) -> Extent:
        try:
            return self._topics[name]
        except KeyError:
            raise _no_topic(name) from None

    # Writing.

    def _append(self, work: Append) -> Appended:
        topic = self._topic(work.topic)
        digest = b""
        if work.mid:
            digest = blake2b(f"{work.sender} {work.mid}".encode(), digest_size=16).digest()
            known = self._stored_as(topic, digest, work.t)
            if known is not None:
                return Appended(known, dup=True)
        more = sum(rules.size(work.subject, body) for body in work.bodies)
        self._make_room(topic, len(work.bodies), more, work.t)
        t = topic.t = max(topic.t, work.t)
        row = schema.row_id(topic.number, topic.last)
        for body in work.bodies:
            row += 1
            crc = schema.record_crc(row, t, work.subject, work.sender, body)
            self._rows.append((row, t, work.subject, work.sender, crc, body))
        topic.last += len(work.bodies)
        topic.messages += len(work.bodies)
        topic.bytes += more
        self._touched[topic.number] = topic
        if work.mid:
            self._ids[topic.number, digest] = topic.last, work.t
        return Appended(topic.last)

    def _stored_as(self, topic: Extent, digest: bytes, now: int) -> int | None:
        """The sequence under which a message with this id was stored not too long ago."""
        known = (
            self._ids.get((topic.number, digest))
            or self._database.execute(
                "SELECT seq, t FROM ids WHERE topic = ? AND id = ?", (topic.number, digest)
            ).fetchone()
        )
        if known is None or now - known[1] > topic.config.dedup * 1000:
            return None
        return int(known[0])

    def _make_room(self, topic: Extent, count: int, more: int, now: int) -> None:
        """Refuse what does not fit even when what is too old has gone."""
        try:
            rules.refuse_if_full(topic.config, topic.messages, topic.bytes, count, more)
        except RemoteProtocolError:
            if not topic.config.max_age:
                raise
            self._insert()
            self._drop(topic, now, retention.SLICE)
            rules.refuse_if_full(topic.config, topic.messages, topic.bytes, count, more)

    def _drop(self, topic: Extent, now: int, limit: int | None) -> bool:
        """Delete from the front what the topic's limits say, at most `limit`; whether that was reached."""
        dropped = retention.drop(self._database, topic, now, limit)
        if dropped:
            self._touched[topic.number] = topic
        return dropped == limit

    def _save_consumer(self, work: SaveConsumer) -> None:
        self._states[work.number] = work.state

    def _put_topic(self, work: PutTopic) -> TopicInfo:
        config = work.config
        topic = self._topics.get(config.topic)
        if topic is None:
            [number] = self._database.execute(
                "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'topics'"
            ).fetchone()
            topic = self._topics[config.topic] = Extent(number, config)
        topic.config = config
        self._touched[topic.number] = topic
        self._insert()
        # Now, so that the next new topic gets another number.
        self._put_row(schema.topic_row(topic.number, config, topic.counts))
        return self._info(topic)

    def _put_row(self, row: tuple[object, ...]) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO topics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row
        )

    def _remove_topic(self, work: RemoveTopic) -> None:
        topic = self._topic(work.topic)
        self._insert()
        db = self._database
        self._put_row(schema.removed_row(topic.number))
        db.execute("DELETE FROM consumers WHERE topic = ?", (topic.number,))
        del self._topics[work.topic]
        self._touched.pop(topic.number, None)
        for number in [n for n, (owner, _) in self._consumers.items() if owner == topic.number]:
            del self._consumers[number]
        self._leftover.append(topic.number)

    def _put_consumer(self, work: PutConsumer) -> StoredConsumer:
        topic = self._topic(work.config.topic)
        found = [
            n for n, (owner, config) in self._consumers.items()
            if owner == topic.number and config.consumer == work.config.consumer
        ]  # fmt: skip
        if found:
            number, state = found[0], self._state_of(found[0])
        else:
            [number] = self._database.execute(
                "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'consumers'"
            ).fetchone()
            self._insert()
            state = ConsumerState(reading.begin(self._database, topic, work.config))
        self._consumers[number] = topic.number, work.config
        self._database.execute(
            "INSERT OR REPLACE INTO consumers VALUES (?, ?, ?, ?, ?)",
            schema.consumer_row(number, topic.number, work.config, state),
        )
        return StoredConsumer(number, work.config, state)

    def _state_of(self, number: int) -> ConsumerState:
        waiting = self._states.get(number)
        if waiting is not None:
            return waiting
        row = self._database.execute(
            "SELECT * FROM consumers WHERE number = ?", (number,)
        ).fetchone()
        return schema.read_consumer(row)[1]

    def _remove_consumer(self, work: RemoveConsumer) -> None:
        if self._consumers.pop(work.number, None) is not None:
            self._database.execute("DELETE FROM consumers WHERE number = ?", (work.number,))

    def _expire(self, work: Expire) -> bool:
        self._insert()
        more = False
        for topic in self._topics.values():
            if topic.config.max_age and topic.messages:
                more |= self._drop(topic, work.t, retention.SLICE)
            horizon = work.t - int(topic.config.dedup * 1000)
            more |= retention.forget_ids(self._database, topic.number, horizon)
        for number in self._leftover[:1]:
            more = True
            if not retention.sweep(self._database, number):
                self._database.execute("DELETE FROM topics WHERE number = ?", (number,))
                self._leftover.remove(number)
        return more

    # Reading.

    def _read(self, work: Work) -> object:
        try:
            if isinstance(work, Fetch):
                topic = self._topic(work.topic)
                return reading.fetch(self._database, topic, work)
            assert isinstance(work, ReadPage)  # noqa: S101 - the only one left
            topic = self._topic(work.topic)
            return reading.page(self._database, topic, work)
        except RemoteProtocolError as refused:
            return refused
        except sqlite3.Error as error:
            return _failure(error)

    def _info(self, topic: Extent) -> TopicInfo:
        consumers = sum(owner == topic.number for owner, _ in self._consumers.values())
        return TopicInfo(
            topic.config, topic.first, topic.last, topic.messages, topic.bytes, consumers
        )


def _no_topic(name: str) -> RemoteProtocolError:
    return RemoteProtocolError(404, "no_topic", f"there is no topic {name}")


def _failure(error: Exception) -> RemoteProtocolError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL" or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return RemoteProtocolError(
            507, "store_full", "the disk is full; nothing of this was stored"
        )
    undecodable = isinstance(error, sqlite3.OperationalError) and not name
    if name in {"SQLITE_CORRUPT", "SQLITE_NOTADB"} or undecodable:
        problem = f"the store is damaged: {error}; stop the broker and run: bus-broker repair"
        return RemoteProtocolError(500, "damaged", problem)
    return RemoteProtocolError(500, "internal", f"the store: {error!r}")
