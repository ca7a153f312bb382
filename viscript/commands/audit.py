"""`viscript audit`: who asked this host for what. Reads the file, so it works when nothing runs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from viscript.output import json_of, line, moment, table

if TYPE_CHECKING:
    from viscript.audit import Line
    from viscript.home import Home


def run(home: Home, *, lines: int, key: str | None, refused: bool, as_json: bool) -> None:
    """The last `lines` of those by `key` (or its name), or those that were refused."""
    from viscript import audit

    found: deque[Line] = deque(maxlen=lines)
    for entry in audit.read(home.audit):
        if key is not None and key not in {entry.key, entry.name}:
            continue
        if not refused or entry.result == "denied":
            found.append(entry)
    if as_json:
        for entry in found:
            line(entry)
        return
    head = ("WHEN", "WHO", "COMMAND", "RESULT", "JOB", "ASKED")
    table(head, [_row(entry) for entry in found])


def _row(entry: Line) -> tuple[str, ...]:
    more = f" and {entry.more} more" if entry.more else ""
    return (
        moment(entry.ts), entry.name or entry.key, entry.command.removeprefix("viscript."),
        entry.result + more, str(entry.job or "-"), json_of(entry.asked)[:120],
    )  # fmt: skip
