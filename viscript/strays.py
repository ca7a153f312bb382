"""What lives in the folders of launches although the database knows nothing of it.

So it is when somebody has moved the database away or put an old one in its place. Nobody knows then what the
programs are, so nothing is started beside them: there would be second copies.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from viscript import processes
from viscript.errors import Conflict
from viscript.generation import Generation
from viscript.home import Home
from viscript.processes import Fate
from viscript.rules import STOP
from viscript.state import Store

PATIENCE = 30.0  # seconds for one to end


def find(home: Home, store: Store) -> list[Path]:
    """Folders of launches that live although they should not."""
    numbers = {str(record.id) for record in store.live()}
    folders = [x for x in home.launches.iterdir() if x.name.isdecimal() and x.name not in numbers]
    return sorted(folder for folder in folders if _lives(folder))


def _lives(folder: Path) -> bool:
    fate, report = processes.look(folder)
    ending = report is not None and report.state in {"gone", "failed"}  # its keeper is just leaving
    return fate is not Fate.ENDED and not ending


def refuse(home: Home, store: Store) -> None:
    """`Conflict` when there are any."""
    found = find(home, store)
    if not found:
        return
    reports = [processes.read_report(folder) for folder in found]
    pids = ", ".join(str(x.pid) for x in reports if x is not None and x.pid is not None)
    raise Conflict(
        f"{found[0]}: something runs that {home.database} does not know of (pid {pids or 'unknown'}); "
        f"put the database back, or end it: viscript down"
    )


async def end(home: Home, store: Store) -> None:
    """End them all, as is usual without any rules."""
    async with asyncio.TaskGroup() as tasks:
        for folder in find(home, store):
            tasks.create_task(_end(home, folder))


async def _end(home: Home, folder: Path) -> None:
    number, report = int(folder.name), processes.read_report(folder)
    count = report.generation if report is not None else 1
    generation = Generation(number, count, folder, home.ctl(number), Path(os.devnull))

    async def ask() -> bool:
        return False  # the bus does not know it either

    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            tasks.create_task(generation.follow(lambda _: None))
            tasks.create_task(generation.terminate(ask, STOP))
    except TimeoutError:  # `down` says what is left
        return
    processes.clear(folder)
