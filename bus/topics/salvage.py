"""Reads what can be read of a database that is not what was written.

Whatever SQLite cannot give in a sweep is asked for row by row; what comes counts only with its checksum.
Records are found by `carve`.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bus.errors import RemoteProtocolError
from bus.signals import TopicConfig
from bus.topics import rules, schema
from bus.topics.schema import BadRow, StoreError

UNKNOWN = 1 << 20  # numbers that are tried one by one when nothing says where they end


@dataclass
class FoundTopic:
    """What is known of a topic; None where its entry is lost."""

    config: TopicConfig
    first: int | None = None
    last: int | None = None
    t: int = 0
    notes: list[str] = field(default_factory=list)


def open_somehow(path: Path) -> sqlite3.Connection:
    """A connection to the tables in `path`, with a new first page when the old one is damaged."""
    try:
        connection = _open(path)
        if connection.execute("SELECT sql, rootpage FROM sqlite_master").fetchall() == _tables(
            path
        ):
            return connection
        connection.close()
    except sqlite3.Error:
        pass
    _graft(path)
    return _open(path)


def numbers(db: sqlite3.Connection, records: Iterable[tuple[int]]) -> list[int]:
    """The numbers of all topics that have an entry or, when entries are lost, one of the `records`' ids."""
    found = {row[0] for row in _sweep(db, "topics", "number", 0, _highest(db, "topics"))}
    if not _damaged(db, "topics"):
        return sorted(found)
    return sorted(found | {row >> schema.SEQ_BITS for (row,) in records})


def topic(db: sqlite3.Connection, number: int) -> FoundTopic:
    """What a topic's entry says, as far as it can be believed."""
    row = _one(db, "SELECT * FROM topics WHERE number = ?", (number,))
    if isinstance(row, tuple) and row:
        try:
            config = schema.read_topic(row)
            return FoundTopic(config, row[3], row[4], row[7])
        except BadRow:
            note = "its entry was damaged: look at its settings"
        try:
            config = msgspec.msgpack.decode(row[2], type=TopicConfig)
            rules.check_topic(config)
            return FoundTopic(config, notes=[note])
        except (msgspec.MsgspecError, RemoteProtocolError, TypeError, ValueError):
            pass
    name = f"recovered-{number}"
    return FoundTopic(
        TopicConfig(name, [f"recovered.{number}"]),
        notes=["its entry is lost: its name and its settings are new"],
    )


def carry_consumers(
    source: sqlite3.Connection, target: sqlite3.Connection, number: int
) -> list[str]:
    """Carry a topic's consumers over; what is to be said about it."""
    notes = []
    for row in _sweep(source, "consumers", "number", 0, _highest(source, "consumers")):
        if row[1] != number:
            continue
        try:
            schema.read_consumer(row)
        except BadRow:
            notes.append(f"consumer number {row[0]} is lost: {_name(row)}make it again")
        else:
            target.execute("INSERT INTO consumers VALUES (?, ?, ?, ?, ?)", row)
    if _damaged(source, "consumers"):
        notes.append("consumers may be lost: look whether all are there")
    return notes


def carry_ids(
    source: sqlite3.Connection, target: sqlite3.Connection, number: int, last: int
) -> list[str]:
    """Carry the message ids over that a topic remembers; what is to be said about it."""
    try:
        rows = source.execute("SELECT * FROM ids WHERE topic = ?", (number,)).fetchall()
    except sqlite3.Error:
        return ["message ids are forgotten: what is published again now is stored again"]
    target.executemany("INSERT INTO ids VALUES (?, ?, ?, ?)", [r for r in rows if r[2] <= last])
    return []


def keep_numbers(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Numbers that were used are not used again."""
    try:
        rows = source.execute("SELECT seq, name FROM sqlite_sequence").fetchall()
    except sqlite3.Error:
        return
    for seq, name in rows:
        if isinstance(seq, int):
            target.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (seq, name)
            )


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory file
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _tables(path: Path) -> list[tuple[str | None, int]]:
    fresh = path.with_name(path.name + ".fresh")
    connection = schema.create(fresh)
    try:
        return connection.execute("SELECT sql, rootpage FROM sqlite_master").fetchall()
    finally:
        connection.close()
        fresh.unlink()


def _graft(path: Path) -> None:
    """Replace the first page, which names the tables, by that of a new database: all are made alike."""
    fresh = path.with_name(path.name + ".fresh")
    schema.create(fresh).close()
    first = bytearray(fresh.read_bytes()[: schema.PAGE])
    fresh.unlink()
    pages = path.stat().st_size // schema.PAGE
    if pages < 2:
        raise StoreError(f"{path}: nothing is left of it")
    struct.pack_into(">3I", first, 28, pages, 0, 0)  # its size; no free pages
    with path.open("r+b") as file:
        file.write(first)


def _sweep(db: sqlite3.Connection, table: str, key: str, position: int, high: int) -> Iterator[Any]:
    """Rows by ascending key after `position` up to `high`, also from behind what cannot be read."""
    select = f"SELECT * FROM {table} WHERE {key} > ? AND {key} <= ? ORDER BY {key}"  # noqa: S608 - ours
    while position < high:
        try:
            for row in db.execute(select, (position, high)):
                if row[0] <= position:
                    break  # a loop in the tree
                position = row[0]
                yield row
            else:
                return
        except sqlite3.Error:
            pass
        # The next is on a page that cannot be read: ask for one after the other until there is one.
        while position < high and not _one(db, select + " LIMIT 1", (position, position + 1)):
            position += 1


def _highest(db: sqlite3.Connection, table: str) -> int:
    """The highest number that a table may have given."""
    row = _one(db, f"SELECT max(seq) FROM sqlite_sequence WHERE name = '{table}'", ())  # noqa: S608
    return row[0] if row and isinstance(row[0], int) and 0 <= row[0] <= UNKNOWN else UNKNOWN >> 4


def _one(db: sqlite3.Connection, select: str, values: tuple[int, ...]) -> tuple[Any, ...] | None:
    """A row; () when there is none; None when it cannot be read."""
    try:
        return db.execute(select, values).fetchone() or ()
    except sqlite3.Error:
        return None


def _damaged(db: sqlite3.Connection, table: str) -> bool:
    """Whether not all of a table can be read."""
    try:
        db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - one of ours
    except sqlite3.Error:
        return True
    return False


def _name(row: tuple[Any, ...]) -> str:
    try:
        return f"{msgspec.msgpack.decode(row[2])['consumer']}; "
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return ""
