"""`viscript logs ID|APP`: what a program printed. Reads the files, so it works when nothing runs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from viscript.errors import NotFound
from viscript.output import document
from viscript.words import clean, did_you_mean

if TYPE_CHECKING:
    from viscript.home import Home

CHUNK = 1 << 16
PAUSE = 0.1  # seconds between two looks at a file
OURS = ("broker", "daemon")


def find(home: Home, target: str) -> Path:
    """The log of an id, or the newest of an app, or the broker's or daemon's own."""
    logs = [path for path in home.logs.glob("*-*.log") if path.name.split("-")[0].isdecimal()]
    if target.isdecimal():
        found = [path for path in logs if path.name.startswith(f"{int(target)}-")]
    else:
        found = [path for path in logs if _app(path) == target]
        if not found and target in OURS and (home.logs / f"{target}.log").exists():
            return home.logs / f"{target}.log"
    if not found:
        known = {*map(_app, logs), *OURS}
        hint = did_you_mean(target, known) or "; see: viscript la --all"
        raise NotFound(f"there is no log of {target!r} in {home.logs}{hint}")
    return max(found, key=lambda path: int(path.name.split("-")[0]))


def _app(path: Path) -> str:
    return path.stem.partition("-")[2]


def run(path: Path, *, lines: int, follow: bool, raw: bool, as_json: bool) -> None:
    """The last `lines` lines, then what comes."""
    file: IO[bytes] = path.open("rb")
    first = _last_lines(file, lines)
    if as_json and not follow:
        text = first.decode(errors="replace")
        document({"file": str(path), "lines": text.splitlines()})
        return
    _show(first, raw=raw)
    while follow:
        data, file = read_on(path, file)
        if data:
            _show(data, raw=raw)
        else:
            time.sleep(PAUSE)


def read_on(path: Path, file: IO[bytes]) -> tuple[bytes, IO[bytes]]:
    """What came since, and the file to ask next: another one after a rotation."""
    if data := file.read(CHUNK):
        return data, file
    try:
        rotated = path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except OSError:
        return b"", file
    if not rotated:
        return b"", file
    rest = file.read()  # written between our last look and the rotation
    file.close()
    return rest, path.open("rb")


def _last_lines(file: IO[bytes], lines: int) -> bytes:
    """Reads backwards by chunks, so that a long log costs nothing."""
    end = file.seek(0, os.SEEK_END)
    start, found = end, b""
    while start > 0 and found.count(b"\n") <= lines:
        step = min(CHUNK, start)
        start -= step
        file.seek(start)
        found = file.read(step) + found
    file.seek(end)
    if lines <= 0:
        return b""
    kept = found.splitlines(keepends=True)[-lines:]
    return b"".join(kept)


def _show(data: bytes, *, raw: bool) -> None:
    if not raw and sys.stdout.isatty():
        data = clean(data.decode(errors="replace")).encode()
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
