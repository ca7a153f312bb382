"""Finds exits and measures them: asks the tracker what is on offer, and each exit whether it is there.

Silent while nobody uses the port. A probe is a stream that the exit refuses: it goes the way that connections
go, and to the same program.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from apps.socks.choosing import Choice, Exit
from apps.socks.messages import OFFER, PROBE
from bus import BusError
from nodes import api, offers
from nodes.client import Node, NodeError, StreamRefused

if TYPE_CHECKING:
    from bus import Bus

PROBE_TIMEOUT: Final = 2.0  # s
LOOK_EVERY: Final = 15.0  # s between two questions to the tracker; offers live for 30
LOOK_AGAIN: Final = 1.0  # s, while no exit is known
IDLE_AFTER: Final = 60.0  # s without a connection
TICK: Final = 0.5  # s
MAX_PAGES: Final = 10


class Scout:
    """Tells `choice` what it finds."""

    def __init__(self, choice: Choice, bus: "Bus") -> None:
        self._choice = choice
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._probes: dict[Exit, asyncio.Task[bool]] = {}
        self._used_at = self._loop.time()
        self._looked = -LOOK_EVERY
        self._wanted = asyncio.Event()

    def used(self) -> None:
        """Somebody wants an exit."""
        self._used_at = self._loop.time()
        self._wanted.set()

    async def work(self, node: Node) -> None:
        """Until the node is lost."""
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._look_around(node, tasks))
            await node.lost.wait()
            looking.cancel()
            for probe in list(self._probes.values()):
                probe.cancel()

    async def is_there(self, which: Exit, node: Node) -> bool:
        """Probe it now, or hear of the probe that is under way."""
        probe = self._probes.get(which)
        if probe is None:
            probe = self._probes[which] = asyncio.create_task(self._probe(which, node))
            probe.add_done_callback(lambda _: self._probes.pop(which, None))
        return await asyncio.shield(probe)

    async def _look_around(self, node: Node, tasks: asyncio.TaskGroup) -> None:
        while True:
            now = self._loop.time()
            if now - self._used_at > IDLE_AFTER:
                self._wanted.clear()
                await self._wanted.wait()
                continue
            if self._choice.fastest:
                await self._look(node, now)
            for which in self._choice.due(now):
                tasks.create_task(_quietly(self.is_there, which, node))
            await asyncio.sleep(TICK)

    async def _probe(self, which: Exit, node: Node) -> bool:
        begun = self._loop.time()
        try:
            opened = await node.open(which.target, which.port, PROBE, PROBE_TIMEOUT)
            await opened.reset()
        except StreamRefused:
            pass  # as it should
        except NodeError:
            self._choice.failed(which, self._loop.time())
            return False
        self._choice.answered(which, self._loop.time() - begun)
        return True

    async def _look(self, node: Node, now: float) -> None:
        """Ask the tracker, if it is time to; without one, what was known stays."""
        pause = LOOK_EVERY if len(self._choice) else LOOK_AGAIN
        if now - self._looked < pause:
            return
        self._looked = now
        try:
            found = await self._offers()
        except (BusError, api.BadBody):
            return
        self._choice.offered((which, load) for which, load in found if which.target != node.key)

    async def _offers(self) -> list[tuple[Exit, float]]:
        """Exits whose nodes vouch for them, with their loads."""
        found = []
        after: offers.Place | None = None
        for _ in range(MAX_PAGES):
            body = api.pack(offers.Search(OFFER, after))
            page = api.unpack(await self._bus.request(offers.FIND, body, timeout=5), offers.Found)
            for told in page.offers:
                try:
                    statement = offers.verified(told, time.time())
                except offers.BadOffer:
                    continue
                if statement.type == OFFER:
                    found.append((Exit(told.key, told.port), offers.load(statement.labels)))
            if not page.more or not page.offers:
                break
            after = offers.Place(page.offers[-1].key, page.offers[-1].port)
        return found


async def _quietly(ask: Callable[[Exit, Node], Awaitable[bool]], which: Exit, node: Node) -> None:
    """A probe for its own sake: what it found, it has told."""
    await ask(which, node)
