"""Finds records in the pages of a database file without SQLite, which gives up with a page on the way.

Every page that may be a leaf of a table is looked through, those that are free as well; a row counts only
with its checksum, which covers its topic and its sequence. Format:
https://www.sqlite.org/fileformat.html, sections 1.5 and 2.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from bus.topics import schema

Row = tuple[int, int, str, str, int, bytes]  # of `records`

_PAGE = schema.PAGE
_LEAF = 0x0D
_LOCAL = _PAGE - 35  # a payload up to this lies in the page, of a longer one at least so much:
_LEAST = (_PAGE - 12) * 32 // 255 - 23
_MAX_PAYLOAD = 2 << 20
_INTEGERS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}  # bytes by serial type


def records(path: Path) -> Iterator[Row]:
    """All that are whole, in no order; one may come several times."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start in range(_PAGE, len(data) - _PAGE + 1, _PAGE):
            if data[start] == _LEAF:
                yield from _leaf(data, start)


def _leaf(data: mmap.mmap, start: int) -> Iterator[Row]:
    page = data[start : start + _PAGE]
    cells = int.from_bytes(page[3:5])
    for index in range(min(cells, _PAGE // 4)):
        at = int.from_bytes(page[8 + 2 * index : 10 + 2 * index])
        try:
            row = _cell(data, page, at)
        except (IndexError, KeyError, ValueError):  # not one of ours, or damaged
            continue
        if schema.whole(row):
            yield row


def _cell(data: mmap.mmap, page: bytes, at: int) -> Row:
    size, at = _varint(page, at)
    identity, at = _varint(page, at)
    if size > _MAX_PAYLOAD:
        raise ValueError(size)
    if size <= _LOCAL:
        return _row(identity, page[at : at + size])
    local = _LEAST + (size - _LEAST) % (_PAGE - 4)
    if local > _LOCAL:
        local = _LEAST
    parts, left = [page[at : at + local]], size - local
    following = int.from_bytes(page[at + local : at + local + 4])
    while left > 0:
        start = (following - 1) * _PAGE
        if start < 0 or start + _PAGE > len(data):
            raise ValueError(following)
        parts.append(data[start + 4 : start + 4 + min(left, _PAGE - 4)])
        left -= _PAGE - 4
        following = int.from_bytes(data[start : start + 4])
    return _row(identity, b"".join(parts))


def _row(identity: int, payload: bytes) -> Row:
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if len(kinds) != 6:
        raise ValueError(len(kinds))
    values: list[bytes] = []
    for kind in kinds:
        size = (kind - 12) // 2 if kind >= 12 else _INTEGERS[kind]
        values.append(payload[at : at + size])
        at += size
    t, crc = (
        kinds[i] - 8 if kinds[i] in {8, 9} else int.from_bytes(values[i], signed=True)
        for i in (1, 4)
    )
    return identity, t, values[2].decode(), values[3].decode(), crc, values[5]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9
