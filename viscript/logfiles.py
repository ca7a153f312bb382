"""Reading what keepers wrote: one stream in several files, its times, and what comes while it is read.

Layout and index: `viscript.keeping.log`. Files written before there was an index have no times.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Annotated

from msgspec import Meta, Struct

from viscript.keeping.log import RECORD

CHUNK = 1 << 16
MAX_LINE = 1 << 16  # bytes; what is longer is shown in pieces
MAX_FILES = 1000
TIMES_END, OFFSETS_END = 1e11, 1 << 43  # Unix seconds and bytes; no clock and no file says more
MISSING = 2  # names in a row, as while they move on by one


class Line(Struct, frozen=True):
    """One line without its end. `time`: Unix seconds, to a second; None: not known."""

    time: float | None
    text: bytes
    whole: bool = True  # its end has been printed, too


class Cursor(Struct, frozen=True):
    """A place in a log that stays the same when its files move on: which of them, and how far in it."""

    device: int
    inode: int
    offset: Annotated[int, Meta(ge=0, le=1 << 53)]


class Segment:
    """One file of a log; number 0 is the one that is written."""

    def __init__(self, log: Path, number: int) -> None:
        self.number = number
        plain = log.with_name(f"{log.name}.{number}") if number else log
        self._index = plain.with_name(f"{plain.name}.idx")
        self.packed = not plain.exists()
        self.path = plain.with_name(f"{plain.name}.gz") if self.packed else plain
        self.offsets: list[int] = []
        self.times: list[float] = []
        self._seen = -1

    @property
    def exists(self) -> bool:
        return self.path.exists()

    @property
    def identity(self) -> tuple[int, int] | None:
        """The same whatever the file is called by now, and also if it is compressed."""
        for path in (self._index, self.path):
            try:
                found = path.stat()
            except OSError:
                continue
            return found.st_dev, found.st_ino
        return None

    def size(self) -> int:
        """Bytes, unpacked."""
        with self.open() as file:
            if self.packed:
                return sum(len(data) for data in iter(partial(file.read, CHUNK), b""))
            return file.seek(0, os.SEEK_END)

    def open(self) -> IO[bytes]:
        return _Unpacked(self.path) if self.packed else self.path.open("rb")  # type: ignore[return-value]

    def read_times(self) -> None:
        try:
            size = self._index.stat().st_size
            if size == self._seen:
                return
            data = self._index.read_bytes()
        except OSError:
            return
        self._seen = size
        whole = data[: len(data) // RECORD.size * RECORD.size]
        records = list(_plausible(RECORD.iter_unpack(whole)))
        self.offsets, self.times = [x for x, _ in records], [x for _, x in records]

    def time_at(self, offset: int) -> float | None:
        """When the byte at `offset` was written."""
        if not self.offsets:
            return None
        return self.times[max(0, bisect_right(self.offsets, offset) - 1)]

    def offset_of(self, moment: float) -> int | None:
        """Where that begins which was written at `moment` or later; None: nothing was."""
        for offset, time in zip(self.offsets, self.times, strict=True):
            if time > moment - 1:  # a record stands for what comes within its second
                return offset
        if not self.offsets and self.path.stat().st_mtime >= moment:
            return 0
        return None


def _plausible(records: Iterable[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """Up to where a power cut has left something else."""
    last = 0
    for offset, time in records:
        if not last <= offset < OFFSETS_END or not 0 <= time < TIMES_END:
            return
        yield offset, time
        last = offset


class _Unpacked(gzip.GzipFile):
    """Ends where the file is damaged, with a line that says so. May read less than was asked for."""

    damaged = False

    def read(self, size: int | None = -1) -> bytes:
        if self.damaged:
            return b""
        try:
            return super().read1(CHUNK if size is None or size < 0 else size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
            self.damaged = True
            return f"\n[viscript: {self.name} is damaged from here on: {problem}]\n".encode()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.damaged = True
            return offset


def segments(log: Path) -> list[Segment]:
    """Oldest first."""
    found, missing = [], 0
    for number in range(MAX_FILES):
        segment = Segment(log, number)
        if segment.exists:
            found.append(segment)
            missing = 0
        elif (missing := missing + 1) > MISSING:
            break
    return found[::-1]


class Splitter:
    """Bytes in, lines out."""

    def __init__(self) -> None:
        self._rest = b""
        self._time: float | None = None

    def feed(self, data: bytes, offset: int, segment: Segment) -> Iterator[Line]:
        """`offset`: of `data` in its file."""
        start = offset - len(self._rest)
        pieces = (self._rest + data).split(b"\n")
        for number, piece in enumerate(pieces):
            time = self._time if number == 0 and self._rest else segment.time_at(start)
            if number == len(pieces) - 1:
                self._rest, self._time = piece, time
                break
            yield from _pieces(piece, time)
            start += len(piece) + 1
        while len(self._rest) > MAX_LINE:
            yield Line(self._time, self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]

    @property
    def held(self) -> int:
        """Bytes of a line that has no end yet."""
        return len(self._rest)

    def rest(self) -> Iterator[Line]:
        """What has no end yet."""
        if self._rest:
            yield Line(self._time, self._rest, whole=False)
        self._rest = b""


def _pieces(text: bytes, time: float | None) -> Iterator[Line]:
    while len(text) > MAX_LINE:
        yield Line(time, text[:MAX_LINE])
        text = text[MAX_LINE:]
    yield Line(time, text)


class Reader:
    """One log from some place on: first what is there, then what comes. Nothing is left out by a rotation."""

    def __init__(
        self,
        log: Path,
        *,
        last: int | None = None,
        since: float | None = None,
        at: Cursor | None = None,
    ) -> None:
        """From the line on that is the `last`th from the end, or was written at `since`, or is `at`."""
        self._log = log
        self._splitter = Splitter()
        self._file: IO[bytes] | None = None
        self._segment: Segment | None = None
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self.cursor: Cursor | None = None  # where the first line begins that was not given yet
        found = segments(log)
        if not found:
            return
        index, offset = (
            _at(found, at) if at is not None
            else _since(found, since) if since is not None
            else (0, 0) if last is None else _last(found, last)
        )  # fmt: skip
        self._open(found[index], offset)

    def lines(self) -> Iterator[Line]:
        """What is there now and was not given yet; a line without its end is given when that comes."""
        while (some := self.some()) is not None:
            yield from some

    def some(self) -> list[Line] | None:
        """As `lines`, but not more than a piece of the file has; None: that is all there is now."""
        data = self._read()
        if not data:
            return None
        assert self._segment is not None  # noqa: S101 - it was read
        found = list(self._splitter.feed(data, self._offset - len(data), self._segment))
        begins = self._offset - self._splitter.held
        if begins >= 0:  # else it begins in the file before, where the cursor is
            self._point(begins)
        return found

    def rest(self) -> Iterator[Line]:
        """What has no end yet, as it is."""
        yield from self._splitter.rest()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _point(self, offset: int) -> None:
        if self._identity is not None:
            self.cursor = Cursor(*self._identity, offset)

    def _open(self, segment: Segment, offset: int) -> None:
        self.close()
        self._identity = segment.identity
        self._file = segment.open()
        self._file.seek(offset)
        segment.read_times()
        self._segment, self._offset = segment, offset
        if not self._splitter.held:
            self._point(offset)

    def _read(self) -> bytes:
        if self._file is None:  # nothing had been printed when we began
            first = Segment(self._log, 0)
            if not first.exists:
                return b""
            self._open(first, 0)
        assert self._file is not None  # noqa: S101
        data = self._file.read(CHUNK)
        if not data and self._moved_on():
            data = self._file.read(CHUNK)
        if data:
            self._offset += len(data)
            if self._segment is not None:
                self._segment.read_times()
        return data

    def _moved_on(self) -> bool:
        """Go on to the next newer file, if there is one."""
        assert self._segment is not None  # noqa: S101
        assert self._file is not None  # noqa: S101
        found = segments(self._log)
        ours = [i for i, x in enumerate(found) if x.identity == self._identity]
        if ours and ours[0] == len(found) - 1:
            if not found[-1].packed and self._shrunk():
                self._file.seek(0)
                self._offset = 0
                return True
            return False
        if not found:
            return False
        rest = self._file.read(1)  # written between our last look and the rotation
        if rest:
            self._file.seek(-1, os.SEEK_CUR)
            return True
        self._open(found[ours[0] + 1] if ours else found[0], 0)
        return True

    def _shrunk(self) -> bool:
        """Somebody has emptied it."""
        assert self._file is not None  # noqa: S101
        return os.fstat(self._file.fileno()).st_size < self._offset


def _at(found: list[Segment], cursor: Cursor) -> tuple[int, int]:
    """Segment and offset of a cursor; the oldest that is left when its file is gone."""
    for index, segment in enumerate(found):
        if segment.identity == (cursor.device, cursor.inode):
            return index, cursor.offset
    return 0, 0


def _since(found: list[Segment], moment: float) -> tuple[int, int]:
    """Segment and offset of the first line written at `moment` or later."""
    for index, segment in enumerate(found):
        segment.read_times()
        offset = segment.offset_of(moment)
        if offset is not None:
            return index, _line_begin(segment, offset)
    return len(found) - 1, found[-1].path.stat().st_size if not found[-1].packed else 0


def _line_begin(segment: Segment, offset: int) -> int:
    """The next place at or after `offset` at which a line begins."""
    if offset == 0:
        return 0
    with segment.open() as file:
        file.seek(offset - 1)
        while data := file.read(CHUNK):
            place = data.find(b"\n")
            if place >= 0:
                return file.tell() - len(data) + place + 1
        return file.tell()


def _last(found: list[Segment], count: int) -> tuple[int, int]:
    """Segment and offset at which the last `count` lines begin; reads backwards, as far as it must."""
    newest = True  # the end of its last line is none between lines
    for index in range(len(found) - 1, -1, -1):
        size = found[index].size()
        if newest and size and count == 0:
            return index, size
        for place in _line_ends(found[index], size):
            if newest and place == size:
                continue
            count -= 1
            if count == 0:
                return index, place
        newest = newest and not size
    return 0, 0


def _line_ends(segment: Segment, size: int) -> Iterator[int]:
    """The places behind line ends, the last one first."""
    with segment.open() as file:
        if segment.packed:  # to go back in it is to unpack it from its beginning
            yield from reversed(array("Q", _ends_in(iter(partial(file.read, CHUNK), b""))))
            return
        while size > 0:
            step = min(CHUNK, size)
            size -= step
            file.seek(size)
            yield from (size + place for place in reversed([*_ends_in([file.read(step)])]))


def _ends_in(pieces: Iterable[bytes]) -> Iterator[int]:
    offset = 0
    for data in pieces:
        place = 0
        while (place := data.find(b"\n", place) + 1) > 0:
            yield offset + place
        offset += len(data)
