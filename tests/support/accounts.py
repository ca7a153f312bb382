"""Whether a repair has accounted for every record: an independent look at the pages of both files."""

import re
import sqlite3
from pathlib import Path

from bus.topics.repair import Report, Saved

PAGE = 4096
SEQ_BITS = 40
_BODY = re.compile(rb"(order|large) (\d+) ")
_TOPICS = {b"order": 1, b"large": 2}
_UNKNOWN = "is not known"  # a note: where the topic began and ended is not

Record = tuple[int, int]  # number of the topic and sequence


def unaccounted(good: bytes, damaged: bytes, report: Report, path: Path) -> set[Record]:
    """The records of a store that are neither in the repaired one nor rightly named as lost.

    `good` and `damaged` are the file before and after the damage. What still stands whole cannot be lost.
    """
    held, names = contents(path)
    by_name = {topic.topic: topic for topic in report.topics}
    standing = whole(good, damaged)
    missing = set()
    for number, seq in stored(good) - held:
        topic = by_name.get(names.get(number, ""))
        named = _named(topic, number, seq, held) if topic else _may_lack_topics(report)
        if (number, seq) in standing or not named:
            missing.add((number, seq))
    return missing


def stored(file: bytes) -> set[Record]:
    """The records that a sound file has."""
    return {(_TOPICS[kind], int(number) + 1) for kind, number in _BODY.findall(file)}


def whole(good: bytes, damaged: bytes) -> set[Record]:
    """The records that a leaf of the damaged file still has as they were, with all their other pages."""
    found = set()
    for start in range(PAGE, len(good), PAGE):
        page, places = damaged[start : start + PAGE], _places(good[start : start + PAGE])
        kept = set(places) & set(_places(page))
        for at, end in zip(places, [*places[1:], PAGE], strict=False):
            cell = good[start + at : start + end]
            match = _BODY.search(cell)
            if match and at in kept and page[at:end] == cell:
                found.add((_TOPICS[match[1]], int(match[2]) + 1))
    return {record for record in found if _spread_whole(good, damaged, record)}


def _places(page: bytes) -> list[int]:
    """Where the cells of a leaf of a table begin."""
    if len(page) < PAGE or page[0] != 0x0D:
        return []
    count = min(int.from_bytes(page[3:5]), (PAGE - 8) // 2)
    return sorted({int.from_bytes(page[8 + 2 * i : 10 + 2 * i]) for i in range(count)})


def _spread_whole(good: bytes, damaged: bytes, record: Record) -> bool:
    """Whether all pages with a part of a record that is too long for one are as they were."""
    number, seq = record
    if number == 1:
        return True
    text, at = b"large %d " % (seq - 1), -1
    while (at := good.find(text, at + 1)) >= 0:
        start = at // PAGE * PAGE
        if good[start : start + PAGE] != damaged[start : start + PAGE]:
            return False
        at = start + PAGE - 1
    return True


def contents(path: Path) -> tuple[set[Record], dict[int, str]]:
    """What a store has: its records, and its topics' names by number."""
    connection = sqlite3.connect(path)
    try:
        ids = connection.execute("SELECT id FROM records").fetchall()
        names = dict(connection.execute("SELECT number, name FROM topics"))
    finally:
        connection.close()
    return {(id_ >> SEQ_BITS, id_ & ((1 << SEQ_BITS) - 1)) for (id_,) in ids}, names


def _may_lack_topics(report: Report) -> bool:
    return any("entries of topics are damaged" in n for topic in report.topics for n in topic.notes)


def _named(topic: Saved, number: int, seq: int, held: set[Record]) -> bool:
    if any(first <= seq <= last for first, last in topic.lost):
        return True
    own = [s for n, s in held if n == number]
    outside = not own or not min(own) < seq < max(own)
    return outside and any(_UNKNOWN in note for note in topic.notes)
