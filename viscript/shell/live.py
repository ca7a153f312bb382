"""Hears what happens while somebody types, and hands it over as lines. A thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from viscript.errors import Denied, ViscriptError
from viscript.events import Event, Page, sentence
from viscript.output import moment
from viscript.words import one_line

if TYPE_CHECKING:
    from viscript.following import Told
    from viscript.home import Home

RETRY = 0.25  # seconds between looks for a daemon, which are looks for a file
KEPT = 200  # lines that wait for the prompt to come back
PATIENCE = 2.0


class Outlet:
    """Where lines go: to the screen while the prompt is there, else they wait, the oldest are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._write: Callable[[str], None] | None = None
        self._waiting: deque[str] = deque(maxlen=KEPT)
        self._forgotten = 0

    def put(self, line: str) -> None:
        with self._lock:
            if self._write is not None:
                self._write(line)
                return
            self._forgotten += len(self._waiting) == KEPT
            self._waiting.append(line)

    def open(self, write: Callable[[str], None]) -> None:
        """The prompt is there: what has waited goes first."""
        with self._lock:
            if self._forgotten:
                write(f"({self._forgotten} earlier events: history)")
            for line in self._waiting:
                write(line)
            self._waiting.clear()
            self._forgotten, self._write = 0, write

    def close(self) -> None:
        with self._lock:
            self._write = None


class Live:
    """The events of a home's daemon, for as long as `with` lasts; daemons may come and go."""

    def __init__(self, home: Home, put: Callable[[str], None]) -> None:
        self._home = home
        self._put = put
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        if self._loop is not None and self._work is not None:
            try:
                self._loop.call_soon_threadsafe(self._work.cancel)
            except RuntimeError:  # it has ended by itself
                return
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            asyncio.run(self._hear())
        except asyncio.CancelledError:
            return

    async def _hear(self) -> None:
        from viscript.following import follow

        self._loop, self._work = asyncio.get_running_loop(), asyncio.current_task()
        while True:
            try:
                await follow(self._home, self._tell)
            except Denied as problem:
                self._put(f"events are not shown: {one_line(str(problem))}")
                return
            except (ViscriptError, OSError):  # nobody is there yet
                await asyncio.sleep(RETRY)

    def _tell(self, told: Told) -> None:
        match told:
            case Event():
                self._put(one_line(sentence(told, moment)))
            case Page():
                for event in told.events:
                    self._put(one_line(sentence(event, moment)))
            case _:
                self._put(one_line(told.text))
