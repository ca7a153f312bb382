"""Finds records in the database: from a place on, for a consumer, by time. Every checksum is looked at."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from bus import subjects
from bus.errors import RemoteProtocolError
from bus.signals import ConsumerConfig
from bus.topics import schema
from bus.topics.extent import Extent
from bus.topics.work import Fetch, Fetched, Page, ReadPage, Record

SCAN = 16_384  # sequences looked through for those that pass a filter, before others get their turn
_RECORDS = "SELECT id, t, subject, sender, crc, body FROM records WHERE id BETWEEN ? AND ?"


def begin(db: sqlite3.Connection, topic: Extent, config: ConsumerConfig) -> int:
    """The cursor of a consumer that has not begun yet."""
    match config.start:
        case "new":
            return topic.last
        case "last":
            return max(topic.last - 1, topic.first - 1)
        case "seq":
            return min(max(config.at - 1, topic.first - 1), topic.last)
        case "time":
            return _at(db, topic, config.at) - 1
        case _:
            return topic.first - 1


def fetch(db: sqlite3.Connection, topic: Extent, work: Fetch) -> Fetched:
    """What `Fetch` asks for; 500 damaged."""
    again, asked, room = [], [], work.max_bytes
    for seq in work.again:
        if room <= 0:
            break
        asked.append(seq)
        for record in _records(db, topic, seq, seq, ""):
            again.append(record)
            room -= len(record.body)
    cursor, fresh = work.after, []
    if work.n and room > 0:
        start = max(work.after + 1, topic.first)
        end = min(topic.last, start + SCAN - 1)
        cursor = max(end, work.after)
        for record in _records(db, topic, start, end, "" if work.filter == ">" else work.filter):
            fresh.append(record)
            room -= len(record.body)
            if len(fresh) == work.n or room <= 0:
                cursor = record.seq
                break
    return Fetched(again, asked, fresh, cursor)


def page(db: sqlite3.Connection, topic: Extent, work: ReadPage) -> Page:
    """What `ReadPage` asks for; 500 damaged."""
    if work.time is not None:
        start = _at(db, topic, work.time)
    elif work.last is not None:
        start = topic.last - work.last + 1
    else:
        start = work.seq or 0
    following = start = max(start, topic.first)
    records, room = [], work.max_bytes
    for record in _records(db, topic, start, topic.last, ""):
        records.append(record)
        room -= len(record.body)
        following = record.seq + 1
        if len(records) == work.n or room <= 0:
            break
    return Page(records, following, max(0, topic.last + 1 - following))


def _records(
    db: sqlite3.Connection, topic: Extent, start: int, end: int, pattern: str
) -> Iterator[Record]:
    bounds = schema.row_id(topic.number, start), schema.row_id(topic.number, end)
    if end < start:
        return
    if pattern:
        matches: dict[str, bool] = {}

        def passes(subject: str) -> bool:
            found = matches.get(subject)
            if found is None:
                found = matches[subject] = subjects.covers(pattern, subject)
            return found

        db.create_function("passes", 1, passes, deterministic=True)
        rows = db.execute(_RECORDS + " AND passes(subject) ORDER BY id", bounds)
    else:
        rows = db.execute(_RECORDS + " ORDER BY id", bounds)
    try:
        for row, t, subject, sender, crc, body in rows:
            seq = row & schema.MAX_SEQ
            if crc != schema.record_crc(row, t, subject, sender, body):
                raise RemoteProtocolError(
                    500, "damaged",
                    f"topic {topic.config.topic}: record {seq} does not have its checksum; stop the "
                    "broker and run: bus-broker repair",
                )  # fmt: skip
            yield Record(seq, t, subject, sender, body)
    finally:
        rows.close()


def _at(db: sqlite3.Connection, topic: Extent, time: int) -> int:
    """The first sequence that was stored at `time` or later; times never go back within a topic."""
    low, high = topic.first, topic.last + 1
    while low < high:
        middle = (low + high) // 2
        row = db.execute(
            "SELECT id, t FROM records WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1",
            (schema.row_id(topic.number, middle), schema.row_id(topic.number, topic.last)),
        ).fetchone()
        if row is None or row[1] >= time:
            high = middle
        else:
            low = (row[0] & schema.MAX_SEQ) + 1
    return low
