"""Drops from the database what has no place any more, a slice at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from bus.topics import rules, schema
from bus.topics.extent import Extent

SLICE = 4096  # rows deleted in one transaction beyond what the limits demand


def drop(db: sqlite3.Connection, topic: Extent, now: int, limit: int | None) -> int:
    """Delete from the front what the topic's limits say, at most `limit` records; how many that were."""
    base = schema.row_id(topic.number, 0)
    rows = db.execute(
        f"SELECT id - ?, {rules.OVERHEAD} + length(subject) + length(body), t FROM records "  # noqa: S608
        "WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (base, base + topic.first, base + topic.last, -1 if limit is None else limit),
    )
    until, count, freed = rules.excess(topic.config, topic.messages, topic.bytes, rows, now)
    rows.close()
    if count:
        db.execute("DELETE FROM records WHERE id BETWEEN ? AND ?", (base, base + until))
        topic.first = until + 1
        topic.messages -= count
        topic.bytes -= freed
    return count


def forget_ids(db: sqlite3.Connection, number: int, horizon: int) -> bool:
    """Delete a slice of the message ids of a topic from before `horizon`; whether it was a whole one."""
    gone = db.execute(
        "DELETE FROM ids WHERE (topic, id) IN "
        "(SELECT topic, id FROM ids WHERE topic = ? AND t < ? LIMIT ?)",
        (number, horizon, SLICE),
    ).rowcount
    return gone == SLICE


def sweep(db: sqlite3.Connection, number: int) -> bool:
    """Delete a slice of what a removed topic has left; False when there was nothing."""
    low, high = schema.row_id(number, 0), schema.row_id(number, schema.MAX_SEQ)
    records = db.execute(
        "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE id BETWEEN ? AND ? LIMIT ?)",
        (low, high, SLICE),
    ).rowcount
    ids = db.execute(
        "DELETE FROM ids WHERE (topic, id) IN (SELECT topic, id FROM ids WHERE topic = ? LIMIT ?)",
        (number, SLICE),
    ).rowcount
    return records + ids > 0


def numbers(db: sqlite3.Connection) -> Iterator[int]:
    """The numbers of topics that have records."""
    number = -1
    while True:
        after = schema.row_id(number, schema.MAX_SEQ)
        [found] = db.execute("SELECT min(id) FROM records WHERE id > ?", (after,)).fetchone()
        if found is None:
            return
        number = found >> schema.SEQ_BITS
        yield number
