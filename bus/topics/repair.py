"""Saves what can be saved of a damaged database, and says what is lost.

Works on a copy: the newest whole version of every page, also from behind a break in the write-ahead log.
Only rows with their checksum are taken over into a new database, which takes the damaged one's place at
once; the damaged one is kept beside it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from msgspec import structs

from bus.topics import carve, retention, rules, salvage, schema, scrub, wal
from bus.topics.salvage import FoundConsumer, FoundTopic
from bus.topics.schema import StoreError, StoreNewer

_LOCK_AT, _LOCK_SIZE = 0x40000000, 512  # where SQLite locks a file


@dataclass(frozen=True)
class Saved:
    """What has become of one topic."""

    topic: str
    messages: int
    lost: list[tuple[int, int]]  # first and last sequence of each stretch
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What `repair` did; `kept` is the damaged file."""

    kept: Path
    topics: list[Saved]


def repair(path: Path, stamp: str) -> Report | None:
    """Put a sound database in the place of a damaged one; None when it is sound already.

    `stamp` is for the name under which the damaged one is kept. `StoreError` or `OSError` when it cannot
    be done; then nothing has changed. It needs as much room as twice the database.
    """
    if not path.exists():
        if not wal.damage(path):
            raise StoreError(f"{path}: no such file; without a durable topic there is none")
        path.touch(0o600)  # a log alone is as much, and is refused as well
    finished = schema.repaired(path)
    building = finished.with_name(finished.name + ".part")
    scratch = path.with_name(path.name + ".scratch")
    with path.open("r+b") as file:
        _lock(file, path)
        _clear(scratch, building)  # of a repair that was killed
        kept = _kept(path, stamp)
        try:
            _copy(file, wal.log_of(kept if kept.exists() else path), scratch)
            if not finished.exists() and _sound(path, scratch):
                return None
            topics = _rebuild(scratch, building)
            if not topics:
                raise StoreError(
                    f"{path}: nothing is left of it; move it away, and {wal.log_of(path).name} if it "
                    "is there, to start with a new one"
                )
            building.replace(finished)
            schema.sync_folder(finished.parent)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: not repaired: {error}; nothing has changed") from None
        finally:
            _clear(scratch, building)
        _swap(path, finished, kept)
    return Report(kept, topics)


def _clear(*databases: Path) -> None:
    for database in databases:
        database.unlink(missing_ok=True)
        wal.log_of(database).unlink(missing_ok=True)


def _lock(file: BinaryIO, path: Path) -> None:
    """Hold what SQLite would: a broker that runs has it, one that starts will not get it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_SIZE, _LOCK_AT)
    except OSError:
        raise StoreError(f"{path}: a broker uses it; stop the broker first") from None


def _kept(path: Path, stamp: str) -> Path:
    """Where the damaged file is to be kept, or is already when the last repair did not get to its end."""
    if schema.repaired(path).exists():
        for kept in sorted(path.parent.glob(f"{path.name}.damaged-*"), reverse=True):
            if kept.samefile(path):
                return kept
    return path.with_name(f"{path.name}.damaged-{stamp}")


def _copy(file: BinaryIO, log: Path, scratch: Path) -> None:
    """The database with all that is whole in its log."""
    frames = list(wal.frames(log))
    ends = [frame for frame in frames if frame.whole and frame.pages]
    with scratch.open("wb") as copy:
        os.fchmod(copy.fileno(), 0o600)
        shutil.copyfileobj(file, copy, 1 << 20)
        if ends:
            for frame in frames:
                if frame.whole and frame.number <= ends[-1].number:
                    copy.seek((frame.page - 1) * len(frame.data))
                    copy.write(frame.data)
            copy.truncate(ends[-1].pages * len(ends[-1].data))


def _sound(path: Path, scratch: Path) -> bool:
    """Whether there is nothing to repair."""
    if wal.damage(path):
        return False
    try:
        scrub.open_checked(scratch).close()
    except StoreNewer as error:
        raise StoreNewer(str(error).replace(str(scratch), str(path))) from None
    except StoreError:
        return False
    return True


def _rebuild(scratch: Path, building: Path) -> list[Saved]:
    """Carry what is whole into a new database."""
    source = salvage.open_grafted(scratch)
    try:
        target = schema.create(building)
        try:
            target.execute("BEGIN")
            target.executemany(
                "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?)", carve.records(scratch)
            )
            topics = _carry_all(source, target)
            target.execute("COMMIT")
            target.execute("PRAGMA journal_mode = DELETE").fetchall()  # all in the one file
        finally:
            target.close()
    finally:
        source.close()
    return topics


def _carry_all(source: sqlite3.Connection, target: sqlite3.Connection) -> list[Saved]:
    """Carry over all topics that have an entry, a record or a consumer, but those that were removed."""
    consumers = salvage.consumers(source)
    seen = {*retention.numbers(target), *(consumer.topic for consumer in consumers.whole)}
    topics = salvage.topics(source, seen)
    for number in topics.removed:
        target.execute("DELETE FROM records WHERE id BETWEEN ? AND ?", _ids(number))
    everywhere = [*topics.notes, *consumers.notes, *salvage.ids_notes(source)]
    everywhere += [note for of, note in consumers.lost.values() if of not in topics.by_number]
    saved = []
    for number, found in sorted(topics.by_number.items()):
        own = [consumer for consumer in consumers.whole if consumer.topic == number]
        last, topic = _carry(target, number, found, max([0, *(c.state.cursor for c in own)]))
        salvage.carry_ids(source, target, number, last)
        notes = [*topic.notes, *_carry_consumers(target, found, own)]
        notes += [note for of, note in consumers.lost.values() if of == number]
        saved.append(replace(topic, notes=notes + everywhere))
    highest = {"topics": topics.highest, "consumers": consumers.highest}
    salvage.keep_numbers(source, target, highest)
    return saved


def _carry(
    target: sqlite3.Connection, number: int, found: FoundTopic, settled: int
) -> tuple[int, Saved]:
    """Make the entry of a topic whose records are there; its last sequence, and what is to be said.

    What retention had dropped goes again. What is behind the last sequence stays: then the entry is an
    older one. All up to `settled` was there once, because a consumer had it.
    """
    low, _ = _ids(number)
    if found.first is not None:
        dropped = (low, low + found.first - 1)
        target.execute("DELETE FROM records WHERE id BETWEEN ? AND ?", dropped)
    first, expected, count, size, t = found.first, found.first, 0, 0, found.t
    lost: list[tuple[int, int]] = []
    rows = target.execute(
        "SELECT id, length(subject), length(body), t FROM records WHERE id BETWEEN ? AND ? ORDER BY id",
        _ids(number),
    )
    for identity, subject, body, at in rows:
        seq = identity - low
        if expected is None:
            first = expected = seq
        if seq > expected:
            lost.append((expected, seq - 1))
        expected = seq + 1
        count, size, t = count + 1, size + rules.OVERHEAD + subject + body, max(t, at)
    reached = (expected or 1) - 1
    last = max(reached, found.last or 0, settled)
    if last > reached:
        lost.append((reached + 1, last))
    row = schema.topic_row(number, found.config, (first or 1, last, count, size, t))
    target.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    notes = found.notes if found.first is not None else [*found.notes, _unknown(first or 1, last)]
    return last, Saved(found.config.topic, count, lost, notes)


def _unknown(first: int, last: int) -> str:
    """What cannot be said about a topic whose first and last sequence are not known."""
    before = f" before {first} or" if first > 1 else ""
    return f"whether it had messages{before} after {last} is not known"


def _carry_consumers(
    target: sqlite3.Connection, topic: FoundTopic, consumers: list[FoundConsumer]
) -> list[str]:
    """Carry a topic's consumers over, to its new name if it has one; what is to be said about it."""
    name, names = topic.config.topic, set()
    for consumer in consumers:
        config = consumer.config
        if config.topic != name:
            names.add(config.topic)
            # Dead letters go where they went.
            config = structs.replace(config, topic=name, dead=rules.dead_subject(config))
        row = schema.consumer_row(consumer.number, consumer.topic, config, consumer.state)
        target.execute("INSERT OR IGNORE INTO consumers VALUES (?, ?, ?, ?, ?)", row)
    return [f"its name was {old}, as its consumers say" for old in sorted(names)]


def _ids(number: int) -> tuple[int, int]:
    """The first and the last row id that a record of a topic may have."""
    return schema.row_id(number, 0), schema.row_id(number, schema.MAX_SEQ)


def _swap(path: Path, finished: Path, kept: Path) -> None:
    """Keep the damaged files, then put the new one in their place. A broker refuses what is half done."""
    log = wal.log_of(path)
    if log.exists() and not wal.log_of(kept).exists():
        os.link(log, wal.log_of(kept))
    if not kept.exists():
        os.link(path, kept)
    schema.sync_folder(path.parent)
    log.unlink(missing_ok=True)
    finished.replace(path)
    schema.sync_folder(path.parent)


def stretches(lost: Iterable[tuple[int, int]]) -> str:
    """The sequences for people: ``7, 12-15``."""
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in lost)
