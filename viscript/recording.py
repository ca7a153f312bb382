"""Recordings of what was published: a file of MessagePack values, one after the other.

First a header map, `{"format": "viscript recording", "version": 1, …}`, then one map for each message:
`{"t": Unix seconds, "s": subject, "from": sender's key, "body": bytes}`. Unknown keys are ignored. A file
whose writer was killed ends in the middle of a map: what is before is good. Any MessagePack library reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import IO, Any

import msgpack
from msgspec import Struct

from bus.subjects import is_subject
from viscript.errors import Failed

FORMAT, VERSION = "viscript recording", 1
MAX_BODY = 16 << 20  # bytes; over any broker's limit
MAX_TEXT = 1024  # bytes
MAX_KEYS = 16  # of one map
_CHUNK = 256 << 10


class Header(Struct, frozen=True):
    """What was recorded, where and when."""

    pattern: str = ""
    broker: str = ""  # its key
    began: float = 0.0  # Unix seconds


class Recorded(Struct, frozen=True):
    """One message; `time` is when it arrived, Unix seconds."""

    time: float
    subject: str
    sender: str
    body: bytes


class Writer:
    """Appends messages to `file`, which is opened for writing bytes."""

    def __init__(self, file: IO[bytes], header: Header) -> None:
        self.messages = 0
        self.bytes = 0
        self._file = file
        self._pack = msgpack.Packer(use_bin_type=True).pack
        head = {"format": FORMAT, "version": VERSION, "pattern": header.pattern}
        self._put({**head, "broker": header.broker, "began": header.began})

    def add(self, message: Recorded) -> None:
        shown = {"t": message.time, "s": message.subject, "from": message.sender}
        self._put({**shown, "body": message.body})
        self.messages += 1

    def _put(self, value: dict[str, Any]) -> None:
        raw = self._pack(value)
        self._file.write(raw)
        self.bytes += len(raw)


class Reader:
    """Messages of the recording in `file`; `name` is what errors call it.

    Whatever is in it, no more is held than one message, and what is no recording is refused with `Failed`.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.truncated = False  # known after the last message
        self._file = _Counted(file)
        self._name = name
        self._unpacker = msgpack.Unpacker(
            self._file, read_size=_CHUNK, max_buffer_size=2 * MAX_BODY, raw=False, timestamp=0,
            strict_map_key=True, max_str_len=MAX_TEXT, max_bin_len=MAX_BODY, max_map_len=MAX_KEYS,
            max_array_len=MAX_KEYS, max_ext_len=0,
        )  # fmt: skip
        self.header = self._header()

    def _header(self) -> Header:
        try:
            found = self._next()
        except Failed:
            found = None
        if found is None or found.get("format") != FORMAT:
            raise Failed(f"{self._name}: not a recording made by viscript bus record")
        if found.get("version") != VERSION:
            version = f"version {found.get('version')!r:.20}"
            raise Failed(f"{self._name}: a recording of {version}; this viscript reads {VERSION}")
        pattern, broker, began = (found.get(name) for name in ("pattern", "broker", "began"))
        return Header(
            pattern if isinstance(pattern, str) else "",
            broker if isinstance(broker, str) else "",
            float(began) if isinstance(began, int | float) else 0.0,
        )

    def __iter__(self) -> Iterator[Recorded]:
        while (found := self._next()) is not None:
            yield self._recorded(found)

    def _next(self) -> dict[str, Any] | None:
        """The next map; None at the end, also where the last one is cut short."""
        at = self._unpacker.tell()
        try:
            value = self._unpacker.unpack()
        except msgpack.OutOfData:
            self.truncated = self._file.count > at
            return None
        except (ValueError, msgpack.UnpackException, RecursionError) as error:
            raise self._damaged(at, str(error) or type(error).__name__) from None
        if not isinstance(value, dict):
            raise self._damaged(at, "not a map")
        return value

    def _recorded(self, found: dict[str, Any]) -> Recorded:
        at = self._unpacker.tell()
        time, subject, sender, body = (found.get(name) for name in ("t", "s", "from", "body"))
        if not isinstance(subject, str) or not is_subject(subject):
            raise self._damaged(at, "before it is a message without a subject")
        if not isinstance(body, bytes) or not isinstance(sender, str):
            raise self._damaged(at, "before it is a message without body or sender")
        if isinstance(time, bool) or not isinstance(time, int | float) or not _is_time(time):
            raise self._damaged(at, "before it is a message without its time")
        return Recorded(float(time), subject, sender, body)

    def _damaged(self, at: int, problem: str) -> Failed:
        return Failed(f"{self._name}: damaged at byte {at}: {problem}")


def _is_time(seconds: float) -> bool:
    return math.isfinite(seconds) and 0 <= seconds < 2**40


class _Counted:
    """Knows how much was read, which a pipe does not."""

    def __init__(self, file: IO[bytes]) -> None:
        self.count = 0
        self._file = file

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data
