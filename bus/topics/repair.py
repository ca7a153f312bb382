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
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bus.topics import carve, rules, salvage, schema, scrub, wal
from bus.topics.schema import StoreDamaged, StoreError

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
        raise StoreError(f"{path}: no such file; without a durable topic there is none")
    finished = schema.repaired(path)
    scratch = path.with_name(path.name + ".scratch")
    with path.open("r+b") as file:
        _lock(file, path)
        kept = _kept(path, stamp)
        try:
            _copy(file, wal.log_of(kept if kept.exists() else path), scratch)
            if not finished.exists() and _sound(path, scratch):
                return None
            topics = _rebuild(scratch, finished)
        finally:
            for name in (scratch, wal.log_of(scratch)):
                name.unlink(missing_ok=True)
        _swap(path, finished, kept)
    return Report(kept, topics)


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
    except StoreDamaged:
        return False
    return True


def _rebuild(scratch: Path, finished: Path) -> list[Saved]:
    """Carry what is whole into a new database."""
    building = finished.with_name(finished.name + ".part")
    building.unlink(missing_ok=True)
    source = salvage.open_somehow(scratch)
    try:
        target = schema.create(building)
        try:
            target.execute("BEGIN")
            target.executemany(
                "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?)", carve.records(scratch)
            )
            ids = target.execute("SELECT id FROM records").fetchall()
            topics = [_carry(source, target, number) for number in salvage.numbers(source, ids)]
            salvage.keep_numbers(source, target)
            target.execute("COMMIT")
            target.execute("PRAGMA journal_mode = DELETE").fetchall()  # all in the one file
        finally:
            target.close()
    finally:
        source.close()
    building.replace(finished)
    schema.sync_folder(finished.parent)
    return topics


def _carry(source: sqlite3.Connection, target: sqlite3.Connection, number: int) -> Saved:
    """Carry one topic over whose records are there; those that retention had dropped go."""
    found = salvage.topic(source, number)
    low, high = schema.row_id(number, 0), schema.row_id(number, schema.MAX_SEQ)
    if found.first is not None and found.last is not None:
        target.execute(
            "DELETE FROM records WHERE id BETWEEN ? AND ? AND id NOT BETWEEN ? AND ?",
            (low, high, low + found.first, low + found.last),
        )
    first, expected, count, size, t = found.first, found.first, 0, 0, found.t
    lost: list[tuple[int, int]] = []
    rows = target.execute(
        "SELECT id, length(subject), length(body), t FROM records WHERE id BETWEEN ? AND ? ORDER BY id",
        (low, high),
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
    last = max(reached, found.last or 0)
    if last > reached:
        lost.append((reached + 1, last))
    counts = (first or 1, last, count, size, t)
    target.execute(
        "INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        schema.topic_row(number, found.config, counts),
    )
    notes = [*found.notes, *salvage.carry_consumers(source, target, number)]
    notes += salvage.carry_ids(source, target, number, last)
    return Saved(found.config.topic, count, lost, notes)


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
