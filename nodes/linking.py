"""Keeps a node linked: dials its peers when it is time, at the place the manager knows.

Who is dialled and when is decided by nodes.links.peers. Without the manager a neighbour that was
found once is dialled again at the address it had.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bus import BusError, Refused
from bus.identity import short
from nodes import api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bus import Bus
    from nodes.links.peers import Dial, Peers
    from nodes.links.zeromq import Transport

log = logging.getLogger(__name__)

_PATIENCE = 3.0  # s to wait for a registration at the manager


class Linking:
    """See the module. `unregistered` is called when the manager does not know this node."""

    def __init__(
        self,
        bus: Bus,
        transport: Transport,
        peers: Peers,
        registered: asyncio.Event,
        unregistered: Callable[[], None],
    ) -> None:
        self.peers = peers
        self._bus = bus
        self._transport = transport
        self._registered = registered
        self._unregistered = unregistered
        self._changed = asyncio.Event()  # somebody may be due earlier than was known

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Dial whoever is due, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            for dial in self.peers.due(loop.time()):
                tasks.create_task(self._dial(dial))
            due = self.peers.next_time()
            try:
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def add(self, targets: Iterable[str]) -> None:
        """Keep these linked from now on, by name or key."""
        for target in targets:
            self.peers.add(target, self._now())
        self._changed.set()

    def suggested(self, peers: list[tuple[str, str]]) -> None:
        """The manager suggests links, as (key, endpoint)."""
        self.peers.suggest(peers, self._now())
        self._changed.set()

    def link_up(self, neighbour: str) -> None:
        self.peers.link_up(neighbour, self._now())

    def link_down(self, neighbour: str) -> None:
        self.peers.link_down(neighbour, self._now())
        self._changed.set()

    async def _dial(self, dial: Dial) -> None:
        try:
            key, endpoint = await self._find(dial)
            if not self.peers.permits(key):
                raise ConnectionError(f"{short(key)} is not on the allow-list (--allow)")
            if self.peers.found(dial.target, key, endpoint, self._now()):
                await self._transport.dial(endpoint, key)
        except (BusError, api.BadBody, ConnectionError) as error:
            if self.peers.failed(dial.target, str(error), self._now()):
                log.info("no link to %s yet: %s", dial.target, error)
        self._changed.set()

    async def _find(self, dial: Dial) -> tuple[str, str]:
        """Key and endpoint of a peer, as the manager says, or as they were known before."""
        known = (dial.key, dial.endpoint) if dial.key and dial.endpoint else None
        try:
            await asyncio.wait_for(self._registered.wait(), _PATIENCE)
            body = await self._bus.request(api.DIAL, api.pack(api.Query(dial.target)), timeout=5)
            found = api.unpack(body, api.Dial)
        except (TimeoutError, BusError) as error:
            if isinstance(error, Refused) and error.err == "unregistered":
                self._unregistered()
            if known is not None and not isinstance(error, Refused):
                return known
            if isinstance(error, TimeoutError):
                raise ConnectionError("not registered at a node manager") from None
            raise
        if not found.endpoint:
            raise ConnectionError(f"{short(found.key)} cannot be dialled; it has to dial")
        return found.key, found.endpoint

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
