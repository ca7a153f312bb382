"""The launcher's side of the bus: who is on it, who is let in, and asking a program to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bus import keystore
from bus.errors import BusError, KeyFileError, NotPresent, Refused
from bus.listing import everything
from bus.signals import (
    ACCESS_LIST,
    ACCESS_PUT,
    ACCESS_REMOVE,
    PING,
    PRESENCE,
    SESSIONS,
    SHUTDOWN,
    AccessEntries,
    AccessEntry,
    AccessKey,
    Done,
    Presence,
    SessionInfo,
    Sessions,
    SessionsQuery,
    pack,
    unpack,
)
from viscript.records import Record

if TYPE_CHECKING:
    from bus.client import Bus, Subscription

log = logging.getLogger(__name__)

BUS_WAIT = 30.0  # seconds that a start waits for a broker that is coming back
ASK_TIMEOUT = 3.0
RETRY = 0.2


class Membership:
    """`arrived` is called with each key that is on the bus; None stands for the daemon itself."""

    def __init__(self, bus: Bus, arrived: Callable[[str | None], None]) -> None:
        self.bus = bus
        self.online: set[str] = set()
        self._arrived = arrived

    async def follow(self) -> None:
        """Hear who comes and goes; never returns."""
        events = await self._subscribe()
        back = asyncio.Event()
        back.set()
        self.bus.on_reconnect(back.set)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(events))
            while True:
                await back.wait()
                back.clear()
                await self._look()

    async def _subscribe(self) -> Subscription:
        while True:
            try:
                return await self.bus.subscribe(f"{PRESENCE}.>")
            except BusError as error:  # lost just now
                log.info("not subscribed: %s", error)
                await asyncio.sleep(RETRY)
                await self.bus.wait_connected()

    async def _look(self) -> None:
        """The truth as the broker has it; events are only hints."""
        try:
            await self._learn_online()
        except BusError as error:  # lost again: the next reconnection looks again
            log.info("sessions unknown: %s", error)
            return
        self._arrived(None)
        for key in self.online:
            self._arrived(key)

    async def _learn_online(self) -> None:
        page = unpack(await self.bus.request(SESSIONS), Sessions)
        self.online = {session.key for session in page.sessions}
        while (query := page.rest) is not None:
            page = unpack(await self.bus.request(SESSIONS, pack(query)), Sessions)
            # Page by page: whom an event has taken out meanwhile is not put back.
            self.online |= {session.key for session in page.sessions}

    async def _hear(self, events: Subscription) -> None:
        async for message in events:
            try:
                presence = unpack(message.body, Presence)
            except Refused as error:
                log.warning("a presence event of the broker: %s", error)
                continue
            if presence.state == "online":
                self.online.add(presence.key)
                self._arrived(presence.key)
            else:
                self.online.discard(presence.key)

    async def reconcile(self, records: Iterable[Record], keys: Iterable[Path]) -> None:
        """Let in whose launches live and nobody else of our apps; keys put in by hand stay."""
        entries = await everything(self.bus, ACCESS_LIST, AccessEntries)
        allowed = {entry.key: entry.roles for entry in entries.keys}
        live = {record.key: record for record in records}
        for path in keys:
            try:
                key = keystore.load(path).public
            except KeyFileError as error:
                log.warning("%s", error)
                continue
            if key in allowed and key not in live:
                await self.shut_out(key)
        for record in live.values():
            if allowed.get(record.key) != [record.role]:
                await self.let_in(record)

    async def let_in(self, record: Record) -> None:
        """Allow a launch's key; `TimeoutError` when the bus stays away."""
        async with asyncio.timeout(BUS_WAIT):
            await self.bus.wait_connected()
        entry = AccessEntry(record.key, record.slot, [record.role])
        await self.bus.request(ACCESS_PUT, pack(entry))

    async def shut_out(self, key: str) -> None:
        """Forbid a key; if the bus is away, the next `reconcile` does."""
        try:
            await self.bus.request(ACCESS_REMOVE, pack(AccessKey(key)))
        except BusError as error:
            log.info("access not removed: %s", error)

    async def shut_down(self, key: str) -> bool:
        """Ask a program to end; False when it is not on the bus or does not answer."""
        if key not in self.online or not self.bus.connected:
            return False
        try:
            await self.bus.request(SHUTDOWN, to=key, timeout=ASK_TIMEOUT)
        except BusError as error:
            log.info("no shutdown over the bus: %s", error)
            return False
        return True

    async def ping(self, key: str, timeout: float) -> str | None:
        """Why a program does not answer over the bus; None when it does."""
        if not self.bus.connected:
            return None  # that is not its fault
        try:
            await self.bus.request(PING, pack(Done()), to=key, timeout=timeout)
        except NotPresent:
            return "is not on the bus"
        except BusError as error:
            return f"does not answer over the bus: {error}"
        return None

    async def traffic(self) -> dict[str, tuple[int, int]]:
        """Bytes that each key on the bus has sent to the broker and got from it, over all its sessions."""
        found: dict[str, tuple[int, int]] = {}
        query: SessionsQuery | None = SessionsQuery()
        while query is not None:
            page = unpack(await self.bus.request(SESSIONS, pack(query)), Sessions)
            for session in page.sessions:
                sent, got = found.get(session.key, (0, 0))
                found[session.key] = (sent + session.bytes_in, got + session.bytes_out)
            query = page.rest
        return found

    async def session(self, key: str) -> SessionInfo | None:
        """What the broker counts for a key; None when it is not on the bus."""
        try:
            query = pack(SessionsQuery(key))
            found = unpack(await self.bus.request(SESSIONS, query), Sessions).sessions
        except NotPresent:
            return None
        return found[-1] if found else None
