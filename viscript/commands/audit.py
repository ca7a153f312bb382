"""`viscript audit`: who asked a host for what. Here it reads the file, so it works when nothing runs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.audit import Line
from viscript.output import json_of, line, moment, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viscript.client import Client
    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.audit"
MOST = 100  # lines of an answer: of the longest, they still fit into a message


class Request(Struct):
    """The last `lines` of those by `key` (or its name), or those that were refused."""

    lines: int
    key: str | None = None
    refused: bool = False
    before: int = 0  # so many of the newest are left out: they are known


class Reply(Struct):
    lines: list[Line]


async def handle(launcher: Launcher, request: Request, _caller: Caller) -> Reply:
    import asyncio

    before = max(0, request.before)
    wanted = Request(max(0, min(request.lines, MOST)) + before, request.key, request.refused)
    found = await asyncio.to_thread(_last, launcher.home, wanted)
    return Reply(found[: len(found) - before])


def _last(home: Home, wanted: Request) -> list[Line]:
    from viscript import audit

    found: deque[Line] = deque(maxlen=wanted.lines)
    for entry in audit.read(home.audit):
        if wanted.key is not None and wanted.key not in {entry.key, entry.name}:
            continue
        if not wanted.refused or entry.result == "denied":
            found.append(entry)
    return list(found)


def run(home: Home, wanted: Request, *, as_json: bool) -> None:
    _show(_last(home, wanted), as_json=as_json)


def run_there(client: Client, wanted: Request, *, as_json: bool) -> None:
    """Of the host that is asked, page by page, the newest first."""
    found: list[Line] = []
    while (left := wanted.lines - len(found)) > 0:
        page = Request(min(left, MOST), wanted.key, wanted.refused, len(found))
        lines = client.ask(SUBJECT, page, Reply).lines
        found[:0] = lines
        if len(lines) < page.lines:
            break
    _show(found, as_json=as_json)


def _show(found: Sequence[Line], *, as_json: bool) -> None:
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
