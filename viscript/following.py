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
from viscript.cluster import files
from viscript.errors import Denied, NoDaemon, ViscriptError
from viscript.events import FETCH, SUBJECT, Event, Fetch, Follower, Page, Published
from viscript.home import Home
from viscript.protocol import DaemonInfo, accept

RETRY = 0.2  # seconds
QUIET = 5.0  # seconds after which daemons are asked whether anything was not heard
ANSWER = 3.0


@dataclass(frozen=True)
class Away:
    """A daemon is not heard just now; when it is again, what was missed follows."""

    text: str


Told = Page | Event | Away  # a page is a snapshot, with the newest events before it


async def follow(home: Home, tell: Callable[[Told], None], *, newest: int = 0) -> None:
    """Tell of everything on all hosts, and of the `newest` events before the first snapshot.

    Never returns. `NoDaemon` only if there is none at the start; `Denied` when our key may not see events.
    """
    info = daemon_info(home)
    hosts = _Hosts(tell, newest)
    while True:
        await _Session(home, info, hosts).run()
        info = await _next_info(home, info.key, hosts)


async def _next_info(home: Home, key: str, hosts: _Hosts) -> DaemonInfo:
    while True:
        try:
            return daemon_info(home)
        except NoDaemon as problem:
            hosts.absent(key, str(problem))
            await asyncio.sleep(RETRY)


class _Hosts:
    """What is known of each daemon, by its key; outlives connections."""

    def __init__(self, tell: Callable[[Told], None], newest: int) -> None:
        self.followers: dict[str, Follower] = {}
        self._newest = newest
        self._tell = tell
        self._away: set[str] = set()

    def are(self, keys: list[str]) -> None:
        """These are followed from now on, others no longer."""
        self.followers = {key: self.followers.get(key) or Follower() for key in keys}

    def suspect(self) -> None:
        """Any of them may have told something that was not heard."""
        for follower in self.followers.values():
            follower.missing = True

    @property
    def missing(self) -> list[str]:
        return [key for key, follower in self.followers.items() if follower.missing]

    def offer(self, key: str, published: Published) -> None:
        """What a daemon has published."""
        follower = self.followers.get(key)
        for event in follower.offer(published) if follower is not None else ():
            self._present(key, event)

    def page(self, key: str, page: Page) -> None:
        """What it has answered."""
        follower = self.followers.get(key)
        if follower is None:  # its host has left meanwhile
            return
        new = follower.page(page)
        if page.launches is not None:
            self._present(key, page)
            return
        for event in new:
            self._present(key, event)

    def request(self, key: str) -> Fetch:
        return Fetch(self.followers[key].after, self._newest)

    def absent(self, key: str, text: str) -> None:
        if key not in self._away:
            self._away.add(key)
            self._tell(Away(text))

    def _present(self, key: str, told: Told) -> None:
        self._away.discard(key)
        self._newest = 0
        self._tell(told)


class _Session:
    """One connection, from where our daemon is to be reached until it is to be reached elsewhere."""

    def __init__(self, home: Home, info: DaemonInfo, hosts: _Hosts) -> None:
        self._home = home
        self._info = info
        self._hosts = hosts
        self._names: dict[str, str] = {}
        self._woken = asyncio.Event()
        self._heard: list[tuple[str, Published]] = []
        self._due = 0.0  # when to ask the daemons whether they have told all

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
            self._hosts.absent(self._info.key, str(error))
            await asyncio.sleep(RETRY)

    async def _listen(self, bus: Bus) -> None:
        subscription = await bus.subscribe(SUBJECT)
        bus.on_reconnect(self._wake)
        tasks = {"": asyncio.create_task(self._hear(subscription))}
        try:
            while not self._moved():
                if self._due <= asyncio.get_running_loop().time():
                    self._look_around()
                for key in self._hosts.missing:
                    if key not in tasks or tasks[key].done():
                        tasks[key] = asyncio.create_task(self._catch_up(bus, key))
                await self._next()
                self._show()
                for task in [task for task in tasks.values() if task.done()]:
                    task.result()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.wait(tasks.values())

    def _look_around(self) -> None:
        """Whom to follow: our daemon, and those of other hosts. Whatever happened until now is asked for."""
        known = files.load_known(self._home)
        hosts = known.directory.accepted if known is not None else []
        self._names = {host.key: host.name for host in hosts if host.key != self._info.key}
        self._hosts.are([self._info.key, *self._names])
        self._hosts.suspect()
        self._due = asyncio.get_running_loop().time() + QUIET

    async def _hear(self, subscription: Subscription) -> None:
        async for message in subscription:
            if message.sender not in self._hosts.followers:  # only daemons tell of launches
                continue
            with suppress(Refused):
                self._heard.append((message.sender, unpack(message.body, Published)))
            self._woken.set()

    def _wake(self) -> None:
        """After a new connection: something may have been published before it."""
        self._hosts.suspect()
        self._woken.set()

    async def _next(self) -> None:
        """Until something is heard or has come; a daemon that does not answer is asked again by and by."""
        left = self._due - asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left, RETRY) if self._hosts.missing else left):
                await self._woken.wait()
        self._woken.clear()

    def _show(self) -> None:
        heard, self._heard = self._heard, []
        for key, published in heard:
            self._hosts.offer(key, published)

    async def _catch_up(self, bus: Bus, key: str) -> None:
        """Ask a daemon for what is missing, as long as it answers."""
        while key in self._hosts.missing:
            try:
                self._hosts.page(key, await self._fetch(bus, key))
                self._woken.set()
            except Denied:
                if key == self._info.key:
                    raise
                self._hosts.followers[key].missing = False  # asked again at the next look around
                return
            except (BusError, ViscriptError) as error:
                name = self._names.get(key)
                who = f"the host {name}" if name else "the daemon"
                self._hosts.absent(key, f"{who} does not answer: {error}")
                return

    async def _fetch(self, bus: Bus, key: str) -> Page:
        try:
            body = await bus.request(FETCH, pack(self._hosts.request(key)), to=key, timeout=ANSWER)
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
