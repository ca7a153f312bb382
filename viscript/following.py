"""Hears the daemon's events for as long as one likes: over its ends, the broker's, and everything's.

`follow` tells of a snapshot first, then of every event once and in order; where some are forgotten, of a new
snapshot. Behind `viscript events -f` and whatever else shows what happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from bus import keystore
from bus.client import Bus, Subscription, connect
from bus.errors import BusError, KeyFileError, NotAuthorised, Refused
from bus.identity import Address
from bus.signals import pack, unpack
from viscript.client import daemon_info
from viscript.errors import Denied, NoDaemon, ViscriptError
from viscript.events import FETCH, SUBJECT, Event, Fetch, Follower, Page, Published
from viscript.home import Home
from viscript.protocol import DaemonInfo, accept

RETRY = 0.2  # seconds
QUIET = 5.0  # seconds without an event after which the daemon is asked whether there was none
ANSWER = 3.0


@dataclass(frozen=True)
class Away:
    """The daemon is not heard just now; when it is again, what was missed follows."""

    text: str


Told = Page | Event | Away  # a page is a snapshot, with the newest events before it


async def follow(home: Home, tell: Callable[[Told], None], *, newest: int = 0) -> None:
    """Tell of everything, and of the `newest` events before the first snapshot. Never returns.

    `NoDaemon` only if there is none at the start; `Denied` when our key may not see events.
    """
    info = daemon_info(home)
    followers: dict[str, Follower] = {}
    away = ""

    def absent(text: str) -> None:
        nonlocal away
        if not away:
            tell(Away(text))
        away = text

    def present(told: Told) -> None:
        nonlocal away
        away = ""
        tell(told)

    while True:
        follower = followers.setdefault(info.key, Follower())
        session = _Session(home, info, follower, present, absent, newest)
        await session.run()
        info = await _next_info(home, absent)


async def _next_info(home: Home, absent: Callable[[str], None]) -> DaemonInfo:
    while True:
        try:
            return daemon_info(home)
        except NoDaemon as problem:
            absent(str(problem))
            await asyncio.sleep(RETRY)


class _Session:
    """One connection, from where the daemon is to be reached until it is to be reached elsewhere."""

    def __init__(
        self, home: Home, info: DaemonInfo, follower: Follower,
        present: Callable[[Told], None], absent: Callable[[str], None], newest: int,
    ) -> None:  # fmt: skip
        self._home = home
        self._info = info
        self._follower = follower
        self._present = present
        self._absent = absent
        self._newest = newest
        self._woken = asyncio.Event()
        self._heard: list[Published] = []

    async def run(self) -> None:
        try:
            keypair = keystore.load(self._home.keys / "cli.key")
        except KeyFileError as error:
            raise Denied(str(error)) from None
        address = Address(self._info.endpoint, self._info.broker_key)
        try:
            async with connect(address, keypair, name="events", timeout=ANSWER) as bus:
                await self._listen(bus)
        except NotAuthorised as error:
            raise Denied(f"{error}; an operator allows it: viscript bus keys allow") from None
        except BusError as error:
            self._absent(str(error))
            await asyncio.sleep(RETRY)

    async def _listen(self, bus: Bus) -> None:
        subscription = await bus.subscribe(SUBJECT)
        bus.on_reconnect(self._wake)
        hearing = asyncio.create_task(self._hear(subscription))
        try:
            self._follower.missing = True  # whatever happened until now
            while not self._moved():
                await self._catch_up(bus)
                await self._next()
                self._show()
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError):
                await hearing

    async def _hear(self, subscription: Subscription) -> None:
        async for message in subscription:
            if message.sender != self._info.key:  # only the daemon tells of its launches
                continue
            with suppress(Refused):
                self._heard.append(unpack(message.body, Published))
            self._woken.set()

    def _wake(self) -> None:
        """After a new connection: something may have been published before it."""
        self._follower.missing = True
        self._woken.set()

    async def _next(self) -> None:
        if self._follower.missing:
            await asyncio.sleep(RETRY)
            return
        try:
            async with asyncio.timeout(QUIET):
                await self._woken.wait()
        except TimeoutError:
            self._follower.missing = True
        self._woken.clear()

    def _show(self) -> None:
        heard, self._heard = self._heard, []
        for published in heard:
            for event in self._follower.offer(published):
                self._present(event)

    async def _catch_up(self, bus: Bus) -> None:
        """Ask for what is missing, as long as the daemon answers."""
        while self._follower.missing:
            after = self._follower.after
            try:
                page = await self._fetch(bus, Fetch(after, self._newest))
            except Denied:
                raise
            except (BusError, ViscriptError) as error:
                self._absent(f"the daemon does not answer: {error}")
                return
            new = self._follower.page(page)
            if page.launches is not None:
                self._newest = 0
                self._present(page)
            else:
                for event in new:
                    self._present(event)

    async def _fetch(self, bus: Bus, request: Fetch) -> Page:
        try:
            body = await bus.request(FETCH, pack(request), to=self._info.key, timeout=ANSWER)
        except Refused as error:
            raise accept(error.err, str(error)) from None
        return unpack(body, Page)

    def _moved(self) -> bool:
        """Whether the daemon is to be found elsewhere now, after everything was taken down."""
        try:
            info = daemon_info(self._home)
        except ViscriptError:
            return False
        return (info.endpoint, info.key) != (self._info.endpoint, self._info.key)
