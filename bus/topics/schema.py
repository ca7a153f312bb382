"""The database of durable topics: its tables, its checksums, and how it is opened.

One file in WAL mode. A record's row id is its topic's number and its sequence in one integer, so that
records of a topic lie together and in order. Numbers of topics are never used again. Every row that
matters carries a CRC-32 over what it says, because SQLite does not notice a flipped bit in a value.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from bus.errors import BusError
from bus.signals import ConsumerConfig, TopicConfig
from bus.topics.work import ConsumerState

# Of the tables. The text of a table changes with it, so that a damaged number is told from another version.
VERSION = 1
APPLICATION = 0x53423154  # "SB1T", in the file's header
PAGE = 4096
SEQ_BITS = 40
MAX_SEQ = (1 << SEQ_BITS) - 1
MAX_NUMBER = 1 << 22  # of a topic; with a sequence it fits into a row id

# In this order: `repair` counts on every new file having the same root pages.
TABLES = (
    """CREATE TABLE topics (
        number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, config BLOB NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL, messages INTEGER NOT NULL,
        bytes INTEGER NOT NULL, t INTEGER NOT NULL, crc INTEGER NOT NULL)""",
    """CREATE TABLE consumers (
        number INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, config BLOB NOT NULL,
        state BLOB NOT NULL, crc INTEGER NOT NULL)""",
    """CREATE TABLE records (
        id INTEGER PRIMARY KEY, t INTEGER NOT NULL, subject TEXT NOT NULL, sender TEXT NOT NULL,
        crc INTEGER NOT NULL, body BLOB NOT NULL)""",
    """CREATE TABLE ids (
        topic INTEGER NOT NULL, id BLOB NOT NULL, seq INTEGER NOT NULL, t INTEGER NOT NULL,
        PRIMARY KEY (topic, id)) WITHOUT ROWID""",
    "CREATE INDEX ids_by_time ON ids (topic, t)",
)

_encode = msgspec.msgpack.Encoder().encode
_decode_topic = msgspec.msgpack.Decoder(TopicConfig).decode
_decode_consumer = msgspec.msgpack.Decoder(ConsumerConfig).decode
_decode_state = msgspec.msgpack.Decoder(ConsumerState).decode


class StoreError(BusError):
    """The database cannot be used; the message names the file, what is wrong and the way out."""


class StoreDamaged(StoreError):
    """The database is not what was written."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: damaged: {what}. Save what can be saved, which keeps the damaged file as well: "
            f"bus-broker repair {path.parent}"
        )


class StoreNewer(StoreError):
    """The database has tables that this broker does not know."""


class BadRow(Exception):
    """A row whose checksum does not hold, or that does not say what it should."""


def row_id(topic: int, seq: int) -> int:
    return topic << SEQ_BITS | seq


def record_crc(row: int, t: int, subject: str, sender: str, body: bytes) -> int:
    return crc32(body, crc32(f"{row} {t} {subject} {sender}".encode()))


def whole(row: tuple[Any, ...]) -> bool:
    """Whether a row of `records` has its checksum."""
    row_number, t, subject, sender, crc, body = row
    try:
        return bool(crc == record_crc(row_number, t, subject, sender, body))
    except TypeError:
        return False


def topic_row(
    number: int, config: TopicConfig, counts: tuple[int, int, int, int, int]
) -> tuple[object, ...]:
    """The row of a topic; `counts` are first, last, messages, bytes and the last record's time."""
    packed = _encode(config)
    crc = crc32(packed, crc32(f"{number} {config.topic} {counts}".encode()))
    return (number, config.topic, packed, *counts, crc)


def read_topic(row: tuple[Any, ...]) -> TopicConfig:
    """The topic that a row describes; `BadRow`."""
    number, name, packed, first, last, messages, size, t, crc = row
    try:
        counts = (first, last, messages, size, t)
        if crc == crc32(packed, crc32(f"{number} {name} {counts}".encode())):
            return _decode_topic(packed)
    except (msgspec.MsgspecError, TypeError, ValueError):
        pass
    raise BadRow(f"topic {name!r}")


def removed_row(number: int) -> tuple[object, ...]:
    """What stands for a removed topic as long as it has records.

    Without it nobody could tell records to be deleted from those whose topic's entry was lost.
    """
    return (number, "", b"", 0, 0, 0, 0, 0, crc32(f"{number} removed".encode()))


def is_removed(row: tuple[Any, ...]) -> bool:
    """Whether a row of `topics` says that the topic was removed."""
    return row == removed_row(row[0])


def consumer_row(
    number: int, topic: int, config: ConsumerConfig, state: ConsumerState
) -> tuple[object, ...]:
    packed, packed_state = _encode(config), _encode(state)
    crc = crc32(packed_state, crc32(packed, crc32(f"{number} {topic}".encode())))
    return (number, topic, packed, packed_state, crc)


def read_consumer(row: tuple[Any, ...]) -> tuple[ConsumerConfig, ConsumerState]:
    """The consumer that a row describes; `BadRow`."""
    number, topic, packed, packed_state, crc = row
    try:
        if crc == crc32(packed_state, crc32(packed, crc32(f"{number} {topic}".encode()))):
            return _decode_consumer(packed), _decode_state(packed_state)
    except (msgspec.MsgspecError, TypeError, ValueError):
        pass
    raise BadRow(f"consumer number {number}")


def connect(path: Path) -> sqlite3.Connection:
    """A connection that alone has the file, syncs at every commit and leaves transactions to us."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=0, cached_statements=64
    )
    try:
        # Exclusive: no shared memory file, which a full disk would turn into a bus error.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        # Overwritten is what was deleted: a repair looks into free pages too, and must not bring it back.
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        connection.execute("PRAGMA cache_size = -16384")
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: Path) -> sqlite3.Connection:
    """A new database for the owner's eyes only; the file is there whole or not at all. `OSError`."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(temporary, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN")
        for table in TABLES:
            connection.execute(table)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    temporary.replace(path)
    sync_folder(path.parent)
    connection = connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


def is_ours(connection: sqlite3.Connection) -> bool:
    """Whether the tables are those of VERSION, whatever the number in the header says."""
    found = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")
    own = [text for (text,) in found if "sqlite_sequence" not in text]
    return own == list(TABLES)


def repaired(path: Path) -> Path:
    """Where a repaired database waits to take the place of `path`."""
    return path.with_name(path.name + ".repaired")


def sync_folder(folder: Path) -> None:
    """Make what was renamed there survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
