"""Reads what can be read of a database that is not what was written.

Whatever SQLite cannot give in a sweep is asked for row by row; what comes counts only with its checksum.
A table that can be read is not therefore complete: a damaged page may say that it has no rows. Records
are found by `carve`, and a topic that has some is one, whatever the table of topics says.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bus import subjects
from bus.errors import RemoteProtocolError
from bus.signals import ConsumerConfig, TopicConfig
from bus.topics import rules, schema
from bus.topics.schema import BadRow
from bus.topics.work import ConsumerState

MANY = 1 << 20  # numbers that are tried one by one at most
SOME = 1 << 16  # and at least, because nothing that says where they end can be believed
_LOOPS = 64  # rows that come again before the tree is taken to go in a circle
_MAY_LACK = "entries of topics are damaged: one of which no message is left may be lost"


@dataclass
class FoundTopic:
    """What is known of a topic; None where its entry is lost."""

    config: TopicConfig
    first: int | None = None
    last: int | None = None
    t: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class FoundTopics:
    by_number: dict[int, FoundTopic]
    removed: set[int]  # numbers of topics that were on their way out
    highest: int  # number that was seen
    notes: list[str]


@dataclass
class FoundConsumer:
    number: int
    topic: int
    config: ConsumerConfig
    state: ConsumerState


@dataclass
class FoundConsumers:
    whole: list[FoundConsumer] = field(default_factory=list)
    lost: dict[int, tuple[int, str]] = field(default_factory=dict)  # topic and note by number
    notes: list[str] = field(default_factory=list)

    @property
    def highest(self) -> int:
        return max([0, *self.lost, *(found.number for found in self.whole)])


def open_grafted(path: Path) -> sqlite3.Connection:
    """A connection to the tables in `path`, which gets the first page of a new database.

    That page names the tables, and all files are made alike. What is cut off is filled up with zeros, so
    that every table has a place. `OSError`, `sqlite3.Error`.
    """
    fresh = path.with_name(path.name + ".fresh")
    try:
        schema.create(fresh).close()
        new = fresh.read_bytes()
    finally:
        fresh.unlink(missing_ok=True)
    first = bytearray(new[: schema.PAGE])
    pages = -(-max(path.stat().st_size, len(new)) // schema.PAGE)
    struct.pack_into(">3I", first, 28, pages, 0, 0)  # its size; no free pages
    with path.open("r+b") as file:
        file.write(first)
        file.truncate(pages * schema.PAGE)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory file
    return connection


def topics(db: sqlite3.Connection, seen: set[int]) -> FoundTopics:
    """All topics that have an entry or are among the numbers `seen`, of records and of consumers."""
    good: dict[int, FoundTopic] = {}
    bad: dict[int, tuple[Any, ...]] = {}
    removed = set()
    for row in _sweep(db, "topics"):
        if schema.is_removed(row):
            removed.add(row[0])
            continue
        try:
            good[row[0]] = FoundTopic(schema.read_topic(row), row[3], row[4], row[7])
        except BadRow:
            bad[row[0]] = row
    _renumber(bad, good, seen - good.keys() - removed)
    found = dict(good)
    for number in sorted({n for n in bad if 0 < n <= schema.MAX_NUMBER} | seen):
        if number not in good and number not in removed:
            others = [topic.config for topic in found.values()]
            found[number] = _unsure(number, bad.get(number), others)
    complete = bad.keys() <= found.keys() and _whole(db, "topics")
    notes = [] if complete else [_MAY_LACK]
    return FoundTopics(found, removed, max([0, *found, *removed]), notes)


def consumers(db: sqlite3.Connection) -> FoundConsumers:
    """All consumers; those without their checksum are named as lost."""
    found = FoundConsumers()
    for row in _sweep(db, "consumers"):
        number, topic = row[0], row[1]
        try:
            found.whole.append(FoundConsumer(number, topic, *schema.read_consumer(row)))
        except BadRow:
            found.lost[number] = (
                topic,
                f"consumer number {number} is lost: {_name(row)}make it again",
            )
    if not _whole(db, "consumers"):
        found.notes.append("consumers may be lost: look whether all are there")
    return found


def carry_ids(
    source: sqlite3.Connection, target: sqlite3.Connection, number: int, last: int
) -> None:
    """Carry the message ids over that a topic remembers, as far as they can be read."""
    rows: list[tuple[Any, ...]] = []
    with contextlib.suppress(sqlite3.Error):
        rows.extend(source.execute("SELECT * FROM ids WHERE topic = ?", (number,)))
    for row in rows:
        _, digest, seq, t = row
        integers = isinstance(seq, int) and isinstance(t, int)
        if isinstance(digest, bytes) and integers and 0 < seq <= last:
            target.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?, ?)", row)


def ids_notes(db: sqlite3.Connection) -> list[str]:
    """What is to be said about the message ids that are remembered."""
    if _whole(db, "ids"):
        return []
    return ["message ids may be forgotten: what is published again now may be stored again"]


def keep_numbers(
    source: sqlite3.Connection, target: sqlite3.Connection, highest: dict[str, int]
) -> None:
    """Numbers that were used, up to the `highest` seen by table, are not used again."""
    for table, seen in highest.items():
        seq = max(seen, _given(source, table))
        update = "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?"
        if not target.execute(update, (seq, table)).rowcount:
            target.execute("INSERT INTO sqlite_sequence (seq, name) VALUES (?, ?)", (seq, table))


def _renumber(
    bad: dict[int, tuple[Any, ...]], good: dict[int, FoundTopic], lacking: set[int]
) -> None:
    """Give entries that have the wrong number, and nothing else wrong, their own back."""
    for number in sorted(lacking):
        for wrong, row in list(bad.items()):
            with contextlib.suppress(BadRow):
                config = schema.read_topic((number, *row[1:]))
                good[number] = FoundTopic(config, row[3], row[4], row[7])
                del bad[wrong]
                break


def _unsure(number: int, row: tuple[Any, ...] | None, others: list[TopicConfig]) -> FoundTopic:
    """A topic whose entry is lost or without its checksum; it may not be one of the `others`."""
    try:
        config = msgspec.msgpack.decode(row[2] if row else b"", type=TopicConfig)
        rules.check_topic(config)
        if not any(_alike(config, other) for other in others):
            return FoundTopic(config, notes=["its entry was damaged: look at its settings"])
    except (msgspec.MsgspecError, RemoteProtocolError, TypeError, ValueError):
        pass
    name, taken = f"recovered-{number}", {other.topic for other in others}
    while name in taken:
        name += "-again"
    return FoundTopic(
        TopicConfig(name, [f"recovered.{number}"]),
        notes=["its entry is lost: its name and its settings are new"],
    )


def _alike(one: TopicConfig, other: TopicConfig) -> bool:
    """Whether there cannot be both."""
    pairs = ((a, b) for a in one.subjects for b in other.subjects)
    return one.topic == other.topic or any(subjects.overlaps(a, b) for a, b in pairs)


def _sweep(db: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a table by number, also those behind what cannot be read; a number may come twice."""
    seen: set[int] = set()
    again = 0
    try:
        for row in db.execute(f"SELECT * FROM {table}"):  # noqa: S608 - one of ours
            again += row[0] in seen
            if again > _LOOPS:
                break
            seen.add(row[0])
            yield row
        else:
            return
    except sqlite3.Error:
        pass
    for number in range(1, min(max(_given(db, table), SOME), MANY) + 1):
        if number not in seen:
            yield from _one(db, f"SELECT * FROM {table} WHERE number = ?", number)  # noqa: S608


def _one(db: sqlite3.Connection, select: str, number: int) -> Iterable[tuple[Any, ...]]:
    """The row of that number, if it can be read; a damaged tree may give another."""
    try:
        row = db.execute(select, (number,)).fetchone()
    except sqlite3.Error:
        return []
    return [row] if row and row[0] == number else []


def _given(db: sqlite3.Connection, table: str) -> int:
    """The highest number that a table has given, as it says; 0 when that cannot be."""
    try:
        rows = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchall()
    except sqlite3.Error:
        return 0
    return max([0, *(s for (s,) in rows if isinstance(s, int) and s <= schema.MAX_NUMBER)])


def _whole(db: sqlite3.Connection, table: str) -> bool:
    """Whether nothing is wrong with the pages of a table."""
    try:
        return db.execute(f"PRAGMA quick_check({table})").fetchall() == [("ok",)]
    except sqlite3.Error:
        return False


def _name(row: tuple[Any, ...]) -> str:
    try:
        return f"{msgspec.msgpack.decode(row[2])['consumer']}; "
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return ""
