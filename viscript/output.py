"""Standard output of the commands: tables for people, one JSON document for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from viscript.words import clean


def say(text: str = "") -> None:
    """A line for people; what came from others in it cannot steer their terminal."""
    print(clean(text), flush=True)  # noqa: T201


def document(value: object) -> None:
    """One JSON document."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), flush=True)  # noqa: T201


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be; the last is not padded."""
    lines = [list(head), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())  # noqa: T201
    sys.stdout.flush()


def moment(seconds: float) -> str:
    """Unix seconds as local time, with the date unless it is today."""
    then, now = time.localtime(seconds), time.localtime()
    style = "%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(style, then)


def size(count: float) -> str:
    """Bytes for people, in binary units."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] == "B" else f"{count:.1f} {units[0]}"
