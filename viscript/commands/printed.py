"""What programs printed, told to other hosts: behind `viscript logs HOST:APP`, no command of its own.

Nothing is kept here of who follows: each request says how far it has come, by a cursor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.errors import NotFound
from viscript.logfiles import Cursor, Reader
from viscript.roles import Role

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.launcher import Launcher
    from viscript.logplaces import Place
    from viscript.roles import Caller

SUBJECT = "viscript.logs"
ENOUGH = (
    100_000  # bytes of one answer, with COST a line; one more piece of the file fits into a message
)
COST = 16


class Request(Struct):
    """Which logs `words` mean; or lines of the log of launch `id`, with id 0 of `app`: broker or daemon.

    They begin at `cursor`, else at `since` (Unix seconds), else they are the `last`.
    """

    words: list[str] = []
    id: int | None = None
    app: str = ""
    last: int | None = None
    since: float | None = None
    cursor: Cursor | None = None


class Log(Struct):
    """One that is meant."""

    id: int
    app: str


class Reply(Struct):
    logs: list[Log] = []
    lines: list[tuple[float | None, bytes]] = []
    rest: bytes = b""  # the beginning of a line that has no end yet
    cursor: Cursor | None = None  # where to go on
    more: bool = False  # there is more already


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """Reads files, in a thread. What the caller may not see does not exist for it."""
    import asyncio

    from viscript import logplaces

    if request.id is None:
        places = await asyncio.to_thread(logplaces.find, launcher.home, request.words)
        seen = [x for x in places if _may(launcher, x, caller)]
        if not seen:
            raise NotFound(
                f"there is no log of {' '.join(request.words)!r}; see: viscript la --all"
            )
        return Reply([Log(x.id or 0, x.app) for x in seen])
    return await asyncio.to_thread(_read, _path(launcher, request, caller), request)


def _may(launcher: Launcher, place: Place, caller: Caller) -> bool:
    from dataclasses import replace

    if place.id is None:  # of daemon or broker: it tells of everything
        return caller.role is not None and caller.role >= Role.VIEW
    return caller.may(Role.VIEW, replace(place, host=launcher.host))


def _path(launcher: Launcher, request: Request, caller: Caller) -> Path:
    from viscript.logplaces import OURS

    if not request.id:
        caller.require_everywhere(Role.VIEW)
        if request.app not in OURS:
            raise NotFound(
                f"there is no log of {request.app[:80]!r}; it may be of {', '.join(OURS)}"
            )
        return launcher.home.logs / f"{request.app}.log"
    record = launcher.resolve(str(request.id))
    if not caller.may(Role.VIEW, record):
        raise NotFound(f"no launch has the id {request.id}; see: viscript la --all")
    return launcher.home.app_log(record.id, record.app)


def _read(path: Path, request: Request) -> Reply:
    last = max(0, request.last) if request.last is not None else None
    reader = Reader(path, last=last, since=request.since, at=request.cursor)
    lines: list[tuple[float | None, bytes]] = []
    size = 0
    try:
        while size < ENOUGH and (some := reader.some()) is not None:
            lines += [(line.time, line.text) for line in some]
            size += sum(len(line.text) + COST for line in some)
        rest = b"".join(line.text for line in reader.rest())
    finally:
        reader.close()
    return Reply([], lines, rest, reader.cursor or request.cursor, size >= ENOUGH)
