"""The audit log of a home: a JSON line for each command: who, what, on what, what came of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

log = logging.getLogger(__name__)

MAX_BYTES = 16 << 20  # of one file
KEPT = 8  # older files
MAX_ASKED = 2000  # characters of what was asked that are kept
REFUSED_PER_SECOND = 20  # lines for refused keys; those beyond are counted
SELDOM = 60.0  # seconds
MAX_LATELY = 10_000
# What was typed or given in secret is nobody's business.
_HIDDEN = frozenset({"request", "data", "text", "token", "secret", "password", "env"})


class Line(Struct, omit_defaults=True):
    """One command. Times are Unix seconds."""

    ts: float
    key: str
    name: str
    command: str  # the subject it was asked by
    asked: Any = None
    result: str = "ok"  # or the name of an error class
    text: str = ""
    job: int | None = None
    more: int = 0  # refusals that were not written one by one


def shown(asked: Any) -> Any:  # noqa: ANN401 - any request
    """What is kept of a request: no secrets, not too much."""
    fields = msgspec.to_builtins(asked, builtin_types=(bytes,))
    if isinstance(fields, dict):
        fields = {
            name: value
            for name, value in fields.items()
            if name not in _HIDDEN and not isinstance(value, bytes)
        }
    text = msgspec.json.encode(fields).decode()
    return fields if len(text) <= MAX_ASKED else text[:MAX_ASKED]


class AuditLog:
    """Appends to `path`. A disk that takes nothing is complained of and stops no command."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._size = 0
        self._second = 0
        self._refused = 0
        self._lately: dict[tuple[str, str], float] = {}

    def write_seldom(self, line: Line) -> None:
        """Once a minute for each key and command: what is asked all the time, only to look."""
        if len(self._lately) > MAX_LATELY:
            self._lately.clear()
        last = self._lately.get((line.key, line.command))
        if last is None or not 0 <= line.ts - last < SELDOM:
            self._lately[line.key, line.command] = line.ts
            self.write(line)

    def write(self, line: Line) -> None:
        if line.result == "denied" and self._too_many(line):
            return
        text = msgspec.json.encode(line) + b"\n"
        try:
            if self._fd is None or self._size + len(text) > MAX_BYTES:
                self._open()
            if self._fd is not None:
                self._size += os.write(self._fd, text)
        except OSError as error:
            log.warning("%s: cannot be written: %s", self._path, error.strerror)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _too_many(self, line: Line) -> bool:
        """A key that may nothing must not fill the disk."""
        if int(line.ts) != self._second:
            line.more = max(0, self._refused - REFUSED_PER_SECOND)
            self._second, self._refused = int(line.ts), 0
        self._refused += 1
        return self._refused > REFUSED_PER_SECOND

    def _open(self) -> None:
        self.close()
        if self._path.exists() and self._path.stat().st_size >= MAX_BYTES - MAX_ASKED:
            for number in range(KEPT - 1, -1, -1):
                with suppress(FileNotFoundError):
                    _numbered(self._path, number).rename(_numbered(self._path, number + 1))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}") if number else path


def read(path: Path) -> Iterator[Line]:
    """All lines that are kept, oldest first; what is no line of ours is passed over."""
    for number in range(KEPT, -1, -1):
        try:
            with _numbered(path, number).open("rb") as file:
                for text in file:
                    with suppress(msgspec.MsgspecError, RecursionError):
                        yield msgspec.json.decode(text, type=Line)
        except OSError:
            continue


def now() -> float:
    return time.time()
