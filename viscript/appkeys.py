"""Keys of apps: there at once, on the disk for good a moment later, so that nothing waits for it to start.

A power cut in between may take a new key away or leave its file empty: then the app gets another one.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import TaskGroup
from pathlib import Path

from bus import keystore
from bus.errors import KeyFileError
from viscript.errors import Denied

log = logging.getLogger(__name__)

LATER = 0.2  # seconds


class AppKeys:
    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._new: list[Path] = []

    def public(self, path: Path) -> str:
        """Of the pair in `path`, which is made if there is none; `Denied`."""
        is_new = not path.exists()
        try:
            key = keystore.load_or_create(path, lasting=False).public
        except (KeyFileError, OSError) as error:
            raise Denied(str(error)) from None
        if is_new:
            self._new.append(path)
            if len(self._new) == 1:
                self._tasks.create_task(self._make_lasting())
        return key

    async def _make_lasting(self) -> None:
        await asyncio.sleep(LATER)
        paths, self._new = self._new, []
        try:
            await asyncio.to_thread(keystore.make_lasting, paths)
        except OSError as error:  # they work all the same
            log.warning("new keys may not survive a power cut: %s", error)
