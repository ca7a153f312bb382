"""Standard output of the commands: tables for people, one JSON document for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from viscript.words import clean, escaped, one_line


def say(text: str = "") -> None:
    """A line for people; what came from others in it cannot steer their terminal."""
    print(clean(text), flush=True)  # noqa: T201


def document(value: object) -> None:
    """One JSON document."""
    import msgspec

    print(msgspec.json.format(json_of(value), indent=2), flush=True)  # noqa: T201


def line(value: object, *, flush: bool = True) -> None:
    """One JSON document of a stream, in one line."""
    sys.stdout.write(json_of(value) + "\n")
    if flush:
        sys.stdout.flush()


def json_of(value: object) -> str:
    """`value` as JSON in one line; what would steer a terminal is escaped, so nothing is lost."""
    import msgspec

    return escaped(msgspec.json.encode(value).decode())


def note(text: str) -> None:
    """A line for people beside what a program may read: on standard error."""
    with suppress(OSError):  # nobody can be told
        print(clean(text), file=sys.stderr, flush=True)  # noqa: T201


def warn(text: str) -> None:
    """A line on standard error for what is worth knowing and ends nothing; with --json an object."""
    from viscript import options

    shown = json_of({"warning": text}) if options.as_json() else f"warning: {one_line(text)}"
    with suppress(OSError):  # nobody can be told
        print(shown, file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """How far long work is: one line on standard error that is written over, if that is a terminal."""

    EVERY = 0.1  # seconds

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._due = 0.0

    def tell(self, text: str) -> None:
        if self._shown and time.monotonic() >= self._due:
            self._due = time.monotonic() + self.EVERY
            print(f"\r\x1b[K{one_line(text)}", end="", file=sys.stderr, flush=True)  # noqa: T201

    def end(self) -> None:
        """Take the line away."""
        if self._shown and self._due:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be; the last is not padded."""
    lines = [list(head), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())  # noqa: T201
    sys.stdout.flush()


def listing(
    found: Sequence[object], head: Sequence[str], rows: Iterable[Sequence[str]], none: str
) -> None:
    """What was found, for programs or for people; `none` is what these read when it is nothing."""
    from viscript import options

    if options.as_json():
        document(found)
    elif found:
        table(head, list(rows))
    else:
        say(none)


def moment(seconds: float) -> str:
    """Unix seconds as local time, with the date unless it is today."""
    then, now = time.localtime(seconds), time.localtime()
    style = "%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(style, then)


def age(then: float) -> str:
    """How long ago, in one unit: 42 s, 5 min, 3 h, 2 d."""
    seconds = max(0.0, time.time() - then)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes for people, in binary units."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] == "B" else f"{count:.1f} {units[0]}"
