"""Reads SQLite's write-ahead log, to tell a torn end from damage.

SQLite stops at the first frame whose checksum is wrong and drops everything after it without a word. That
is right for a transaction that was being written when the machine stopped: nobody was told that it is
stored. It is wrong for a frame before the last transaction: what follows was synced and answered. Format:
https://www.sqlite.org/fileformat.html, section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bus.topics.schema import PAGE

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # and the byte order of the checksums


@dataclass(frozen=True, slots=True)
class Frame:
    """One page as a transaction left it."""

    number: int  # of the frame, from 1
    page: int
    pages: int  # of the database after the commit that this frame ends; 0: it ends none
    data: bytes
    whole: bool  # its checksum follows from that of the frame before


def log_of(path: Path) -> Path:
    """Where the log of the database `path` is."""
    return path.with_name(path.name + "-wal")


def frames(log: Path) -> Iterator[Frame]:
    """The frames of the log's present round, in order; none when there is no log."""
    try:
        raw = log.open("rb")
    except FileNotFoundError:
        return
    with raw:
        head = raw.read(_HEADER.size)
        if len(head) < _HEADER.size:
            return
        magic, _, _, _, *round_, sum1, sum2 = _HEADER.unpack(head)
        order = _MAGIC.get(magic, "<")
        before: tuple[int, int] | None = (sum1, sum2)
        if not _header_whole(head):  # the first frame tells the round as well
            round_, before = [], None
        number = 0
        while len(chunk := raw.read(_FRAME.size + PAGE)) == _FRAME.size + PAGE:
            number += 1
            page, pages, *salts, sum1, sum2 = _FRAME.unpack_from(chunk)
            round_ = round_ or salts
            if salts != round_:  # an earlier one
                before = None
                continue
            data = chunk[_FRAME.size :]
            follows = before is not None and _sums(order, before, chunk[:8] + data) == (sum1, sum2)
            whole = follows and page > 0  # zeros have the checksum of zeros
            yield Frame(number, page, pages, data, whole)
            before = (sum1, sum2)


def damage(path: Path) -> str:
    """What is wrong with the log of the database `path`; empty when nothing was lost that was synced.

    To be asked before SQLite is: it deletes the log of a database that is empty, and writes over that of
    one which is missing.
    """
    log = log_of(path)
    if log.exists() and log.stat().st_size > _HEADER.size:
        with log.open("rb") as raw:
            head = raw.read(_HEADER.size)
        if any(head) and not _header_whole(head):  # all zero: made, and never synced
            return f"the head of its write-ahead log {log.name} does not have its checksum"
    broken, commits, expected, size = 0, 0, 1, 0
    held: set[int] = set()  # pages that the log has
    for frame in frames(log):
        held.add(frame.page)
        if not broken and (frame.number != expected or not frame.whole):
            broken = expected
        expected = frame.number + 1
        if broken and frame.whole and frame.pages:
            commits += 1
        elif not broken and frame.pages:
            size = frame.pages
    # One commit after the break may be the transaction that was never answered, written out of order.
    if commits > 1:
        return f"frame {broken} of its write-ahead log {log.name}, before its last transaction"
    return _without_pages(path, held - {0}, size)


def _without_pages(path: Path, held: set[int], size: int) -> str:
    """What is wrong with a database file whose log has the pages `held` of `size`."""
    if not held:
        return ""
    there = path.stat().st_size // PAGE if path.exists() else 0
    if not there:
        return f"it is empty or missing, but its write-ahead log {log_of(path).name} is not"
    if any(page not in held for page in range(there + 1, size + 1)):
        return f"it has {there} pages and not the {size} that its write-ahead log counts on"
    return ""


def _header_whole(head: bytes) -> bool:
    order = _MAGIC.get(_HEADER.unpack(head)[0])
    return order is not None and _sums(order, (0, 0), head[:24]) == _HEADER.unpack(head)[6:]


def _sums(order: str, before: tuple[int, int], data: bytes) -> tuple[int, int]:
    """SQLite's running checksum over pairs of 32-bit words."""
    s0, s1 = before
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + first + s1) & 0xFFFFFFFF
        s1 = (s1 + second + s0) & 0xFFFFFFFF
    return s0, s1
