"""`viscript events [-f]`: a snapshot, then what happens to launches, in order and without gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viscript.errors import Failed
from viscript.events import FETCH, Fetch, Page

if TYPE_CHECKING:
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = FETCH
Request = Fetch


async def handle(launcher: Launcher, request: Fetch, _caller: Caller) -> Page:
    """Without a number to go on from, a snapshot of what is live comes along."""
    import msgspec

    if launcher.recorder is None:
        raise Failed("this daemon keeps no events; see: viscript status")
    page = launcher.recorder.events.page(request.after, request.limit)
    if request.after is None:
        launches = [record.status() for record in launcher.records.values()]
        page = msgspec.structs.replace(page, launches=launches)
    return page
