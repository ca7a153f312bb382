"""The side of a host that has joined: its apps are let in by the first host, which hears what runs here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from bus import keystore
from bus.errors import BusError, KeyFileError, Refused
from bus.signals import Done, pack, unpack
from bus.version import VERSION
from viscript.cluster import files, talk
from viscript.cluster.numbers import LOW, Block, Numbers
from viscript.cluster.talk import App, Directory, Hello, Known, Report, Welcome
from viscript.errors import NoDaemon, ViscriptError
from viscript.membership import ASK_TIMEOUT, BUS_WAIT, Membership
from viscript.protocol import accept

if TYPE_CHECKING:
    from bus.client import Bus
    from viscript.cluster.host import Launching
    from viscript.records import Record, Status

log = logging.getLogger(__name__)

T = TypeVar("T")
EVERY = 5.0  # seconds between two reports when nothing happens
GATHER = 0.2  # seconds in which changes become one report
RETRY = 1.0


class Joined(Membership):
    """As `Membership`, with the first host's help instead of an admin's rights."""

    def __init__(
        self, bus: Bus, arrived: Callable[[str | None], None], launcher: Launching, people: str
    ) -> None:
        super().__init__(bus, arrived)
        self._launcher = launcher
        self._people = people
        self._home = launcher.home
        self._let_in: dict[str, str] = {}  # keys that we know to be in, with their roles
        self._changed = asyncio.Event()
        self._welcome = asyncio.Event()
        self._owes = False  # keys are still to be let in, or shut out
        bus.on_reconnect(self._changed.set)

    def changed(self) -> None:
        """Something is different here: report it soon."""
        self._changed.set()

    async def attend(self) -> None:
        """Say hello, report, take new ids in time; never returns."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear_of_hosts())
            while True:
                try:
                    await self._turn()
                except (BusError, ViscriptError) as error:  # nor may a full disk end the daemon
                    log.info("the first host is not reached: %s", error)
                    await asyncio.sleep(RETRY)
                    await self.bus.wait_connected()

    async def welcomed(self) -> None:
        """Until the first host has said hello to this daemon."""
        await self._welcome.wait()

    async def numbered(self, patience: float) -> None:
        """Until we have ids to give; `NoDaemon` when the first host hands out none in `patience` seconds.

        With ids from before nobody is waited for: the cluster is taken to be as it was then.
        """
        if (known := files.load_known(self._home)) is not None:
            self._launcher.be_called(known.name)
            self._launcher.directory = known.directory
        deadline = time.monotonic() + patience
        while self._launcher.store.numbers is None:
            try:
                await self.hello()
            except (BusError, NoDaemon) as error:
                if time.monotonic() >= deadline:
                    raise NoDaemon(
                        f"the first host of the cluster does not answer: {error}; is its daemon up? Then: "
                        "viscript up"
                    ) from None
                await asyncio.sleep(RETRY)

    async def _hear_of_hosts(self) -> None:
        """Learn anew who belongs when the first host says that this has changed."""
        while True:
            try:
                async for _ in await self.bus.subscribe(talk.CHANGED):
                    with suppress(BusError, ViscriptError):
                        self._know(await self._ask(talk.HOSTS, Done(), Directory))
            except BusError as error:
                log.info("not told of hosts: %s", error)
            await asyncio.sleep(RETRY)
            await self.bus.wait_connected()

    async def _turn(self) -> None:
        """One report, with what has to go before it; then wait for a reason for the next."""
        if not self._welcome.is_set():
            await self.hello()
        if self._owes:
            await self._settle()
        self._changed.clear()
        await self._ask(talk.REPORT, Report(self._reported()[: talk.MAX_REPORT]), Done)
        numbers = self._launcher.store.numbers or Numbers()
        if numbers.left < LOW:
            block = await self._ask(talk.NUMBERS, Done(), Block)
            numbers = self._launcher.store.numbers or Numbers()
            self._launcher.store.set_numbers(numbers.with_block(block))
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY):
                await self._changed.wait()
        await asyncio.sleep(GATHER)

    def _reported(self) -> list[Status]:
        """What lives here, unless others may see nothing of it: not when this host is away either."""
        own = files.load_membership(self._home)
        if own is None or own.grant == "none":
            return []
        return [record.status() for record in self._launcher.records.values()]

    async def hello(self) -> None:
        """Be known to the first host, and pin its key at the first contact; `BusError`, `NoDaemon`."""
        own = files.load_membership(self._home)
        assert own is not None  # noqa: S101 - for the type: we are here because of it
        if not self.bus.connected:
            raise NoDaemon(f"no broker answers at {own.endpoint}")
        hello = pack(Hello(own.name, self._people, VERSION))
        if own.first:
            body = await self.bus.request(talk.HELLO, hello, to=own.first, timeout=ASK_TIMEOUT)
        else:
            body = await self.bus.request(talk.HELLO, hello, timeout=ASK_TIMEOUT)
        welcome = unpack(body, Welcome)
        if not own.first or own.name != welcome.name:
            first = own.first or welcome.directory.first.key
            files.save_membership(self._home, structs.replace(own, first=first, name=welcome.name))
        self._launcher.be_called(welcome.name)
        self._know(welcome.directory, welcome.name)
        if not (self._launcher.store.numbers or Numbers()).left:
            block = await self._ask(talk.NUMBERS, Done(), Block)
            self._launcher.store.set_numbers(Numbers((block,)))
        self._welcome.set()

    def _know(self, directory: Directory, name: str = "") -> None:
        self._launcher.directory = directory
        files.save_known(self._home, Known(name or self._launcher.host, directory))

    async def _ask(self, subject: str, request: object, kind: type[T]) -> T:
        own = files.load_membership(self._home)
        first = own.first if own is not None else ""
        if not first:
            raise NoDaemon("the first host of the cluster has not been reached yet")
        body = await self.bus.request(subject, pack(request), to=first, timeout=ASK_TIMEOUT)
        return unpack(body, kind)

    # What a launcher needs of the bus.

    async def reconcile(self, records: Iterable[Record], keys: Iterable[Path]) -> None:
        """As for `Membership`; when the first host is away, as soon as it is back."""
        if not self._reached:
            self._owes = True
            return
        live = {record.key: record for record in records}
        for path in keys:
            try:
                key = keystore.load(path).public
            except KeyFileError as error:
                log.warning("%s", error)
                continue
            if key not in live:
                await self.shut_out(key)
        for record in live.values():
            try:
                await self.let_in(record)
            except (BusError, TimeoutError, NoDaemon) as error:
                log.warning("%s (ID %s) is not let in: %s", record.app, record.id, error)

    async def _settle(self) -> None:
        """Do what could not be done while the first host was away."""
        self._owes = False
        keys = list((self._home.keys / "apps").glob("*.key"))
        await self.reconcile(self._launcher.records.values(), keys)

    @property
    def _reached(self) -> bool:
        return self.bus.connected and self._welcome.is_set()

    async def let_in(self, record: Record) -> None:
        """Have a launch's key let in; a key that is in already needs nobody.

        What is ready without the bus, or has run before, is not kept waiting by a first host that is away:
        its key is let in later.
        """
        if self._let_in.get(record.key) == record.role:
            return
        if not self._reached and (record.ready_probe.kind != "bus" or record.generation > 1):
            self._owes = True
            return
        async with asyncio.timeout(BUS_WAIT):
            await self.bus.wait_connected()
            await self._welcome.wait()
        try:
            await self._ask(talk.ADMIT, App(record.key, record.slot, record.role), Done)
        except Refused as error:
            raise accept(error.err, str(error)) from None
        self._let_in[record.key] = record.role

    async def shut_out(self, key: str) -> None:
        self._let_in.pop(key, None)
        try:
            await self._ask(talk.DISMISS, App(key), Done)
        except (BusError, NoDaemon) as error:
            self._owes = True
            log.info("access not removed yet: %s", error)

    async def shut_down(self, key: str) -> bool:
        if key not in self.online or not self.bus.connected:
            return False
        try:
            await self._ask(talk.END, App(key), Done)
        except (BusError, NoDaemon) as error:
            log.info("no shutdown over the bus: %s", error)
            return False
        return True
