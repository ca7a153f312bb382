"""Looks at every page and every record of a database before it is used."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from bus.signals import TopicConfig
from bus.topics import retention, rules, schema, wal
from bus.topics.schema import BadRow, StoreDamaged, StoreError, StoreNewer

_MAX_NAMED = 5  # damaged records that the message names


# What SQLite says of a file that is not what was written; nothing: that a text cannot be decoded.
_OF_DAMAGE = ("", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")


def open_any(path: Path) -> sqlite3.Connection | None:
    """The database in `path` as `open_checked` gives it; None when there has been none yet."""
    if path.exists() or schema.repaired(path).exists() or wal.damage(path):
        return open_checked(path)
    return None


def open_checked(path: Path) -> sqlite3.Connection:
    """The database in `path`, all of it read and found whole; `StoreError` or `StoreDamaged`."""
    if schema.repaired(path).exists():
        raise StoreError(
            f"{path}: a repair did not get to its end; run it again: "
            f"bus-broker repair {path.parent}"
        )
    torn = wal.damage(path)
    if torn:
        raise StoreDamaged(path, torn)
    connection = None
    try:
        connection = schema.connect(path)
        _check_version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        _check_pages(connection, path)
        _check_rows(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        # Python cannot say what SQLite does when a flipped bit is in the text of a table.
        if not isinstance(error, (sqlite3.Error, UnicodeDecodeError)):
            raise
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StoreError(f"{path}: in use by another process, which has to end first") from None
        if name in _OF_DAMAGE:
            raise StoreDamaged(path, str(error)) from None
        raise StoreError(f"{path}: cannot be opened: {error}") from None
    return connection


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if application != schema.APPLICATION:
        raise StoreDamaged(path, "it is not a database of durable topics")
    if version != schema.VERSION and schema.is_ours(connection):
        raise StoreDamaged(path, f"it says version {version} over tables of {schema.VERSION}")
    if version != schema.VERSION:
        raise StoreNewer(
            f"{path}: version {version} of the tables; this broker knows version {schema.VERSION}: "
            "run the broker that wrote it"
        )


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StoreDamaged(path, " ".join(found.split()))


def _check_rows(connection: sqlite3.Connection, path: Path) -> None:
    """Every row of every table; `StoreDamaged` names what is wrong."""
    try:
        _read_rows(connection, path)
    except sqlite3.OperationalError:
        # A flipped bit may be one in a text, which then cannot be decoded. Only then are texts decoded by a
        # function of ours, which costs a sixth of the whole.
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        _read_rows(connection, path)
        connection.text_factory = str


def _read_rows(connection: sqlite3.Connection, path: Path) -> None:
    known = set()
    try:
        for row in connection.execute("SELECT * FROM topics ORDER BY number"):
            known.add(row[0])
            if not schema.is_removed(row):
                _check_records(connection, path, schema.read_topic(row), row)
        for row in connection.execute("SELECT * FROM consumers"):
            schema.read_consumer(row)
            if row[1] not in known:
                raise StoreDamaged(path, f"consumer number {row[0]} is of no topic")
    except BadRow as error:
        raise StoreDamaged(path, f"the entry of {error} does not have its checksum") from None
    for number in retention.numbers(connection):
        if number not in known:
            raise StoreDamaged(path, f"there are records of a topic {number}, which has no entry")


def _check_records(
    connection: sqlite3.Connection,
    path: Path,
    config: TopicConfig,
    row: tuple[Any, ...],
) -> None:
    number, _, _, first, last, messages, size, _, _ = row
    count, total, bad = 0, 0, []
    rows = connection.execute(
        "SELECT id, t, subject, sender, crc, body FROM records WHERE id BETWEEN ? AND ?",
        (schema.row_id(number, 0), schema.row_id(number, schema.MAX_SEQ)),
    )
    for record in rows:
        seq = record[0] & schema.MAX_SEQ
        if not schema.whole(record):
            bad.append(seq)
            continue
        if not first <= seq <= last:
            raise StoreDamaged(path, f"topic {config.topic} holds a sequence {seq} that it has not")
        count, total = count + 1, total + rules.size(record[2], record[5])
    if bad:
        named = ", ".join(map(str, bad[:_MAX_NAMED])) + (", …" if len(bad) > _MAX_NAMED else "")
        what = f"topic {config.topic}: {len(bad)} records without their checksum: {named}"
        raise StoreDamaged(path, what)
    if (count, total) != (messages, size):
        what = f"topic {config.topic}: {count} records of {total} bytes, not {messages} of {size}"
        raise StoreDamaged(path, what)
