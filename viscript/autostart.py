"""What comes up by itself: apps marked autostart, but what runs, was stopped on purpose or has ended well.

To end well counts until `down` or the next boot, to be stopped until `down`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container

from viscript import catalog
from viscript.config import App
from viscript.errors import Failed, ViscriptError
from viscript.launcher import Launcher
from viscript.protocol import Event
from viscript.records import Record
from viscript.supervision.states import State

log = logging.getLogger(__name__)

AT_ONCE = 8  # are written to disk together

WAITS = (
    "it needs the bus, and the cluster's broker does not answer; it is started as soon as that does"
)


class Autostart:
    """`tell` hears what is not started, and why."""

    def __init__(self, launcher: Launcher, tell: Callable[[Event], None]) -> None:
        self._launcher = launcher
        self._tell = tell
        self._left: set[str] = set()  # until there is a bus

    async def begin(
        self, *, away: bool, admit: Callable[[list[Record]], None] | None = None
    ) -> list[Record]:
        """Start them; what needs the bus is left for `begin_rest` while that is `away`.

        `admit` hears of them before they run; then it is left to the caller to make all of it lasting.
        """
        apps = self._launcher.config.apps
        self._left = catalog.needing_bus(apps) if away else set()
        for app in self._due(self._left):
            log.info("%s waits for the bus", app.name)
            self._tell(Event("problem", app=app.name, text=WAITS, error="no-daemon"))
        if admit is not None:
            return await self._start(apps.keys() - self._left, admit)
        begun = await self._start(apps.keys() - self._left)
        self._launcher.store.make_lasting()
        return begun

    async def begin_rest(self) -> None:
        """There is a bus now."""
        names, self._left = self._left, set()
        try:
            await self._start(names)
            self._launcher.store.make_lasting()
        except Failed as error:  # no room on the disk
            log.error("%s", error)  # noqa: TRY400 - said to people

    def _due(self, names: Container[str]) -> list[App]:
        runs = {record.app for record in self._launcher.records.values()}
        found = []
        for app in catalog.order(self._launcher.config.apps):
            wanted = app.autostart and app.instances and app.name in names
            if wanted and app.name not in runs and not self._over(app.name):
                found.append(app)
        return found

    def _over(self, app: str) -> bool:
        last, recorder = self._launcher.store.last_of(app), self._launcher.recorder
        if last is None or last.session != self._launcher.store.session:
            return False
        booted = recorder is not None and recorder.events.booted
        return last.stop or (last.state == State.EXITED and not booted)

    async def _start(
        self, names: Container[str], admit: Callable[[list[Record]], None] = lambda _: None
    ) -> list[Record]:
        """Some at a time: while the next are written down those before are begun."""
        started: list[Record] = []
        ordered = [x.name for x in catalog.order(self._launcher.config.apps) if x.name in names]
        for first in range(0, len(ordered), AT_ONCE):
            with self._launcher.store.together(lasting=False):
                batch = self._write_down(frozenset(ordered[first : first + AT_ONCE]))
            admit(batch)
            started += batch
            await asyncio.sleep(0)
        return started

    def _write_down(self, names: Container[str]) -> list[Record]:
        started = []
        for app in self._due(names):
            try:
                started += self._launcher.begin(app.name, ())
            except ViscriptError as error:
                log.warning("%s is not started: %s", app.name, error)
                self._tell(Event("problem", app=app.name, text=str(error), error=error.name))
        return started
