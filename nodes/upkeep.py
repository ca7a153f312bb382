"""What apps of a node need beside `nodes.client`: a node that comes and goes, an orderly end, offers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING, Final

from bus import BusError
from nodes import api, offers
from nodes.client import NodeAbsent, NodeError, connect_node

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from pathlib import Path

    from bus import Bus
    from bus.process import Participant
    from nodes.client import Node

log = logging.getLogger(__name__)

RETRY: Final = 0.2, 2.0  # seconds between two tries to reach the node: the first, and the most
OFFER_LIFETIME: Final = 30  # seconds
OFFER_EVERY: Final = 10.0  # seconds: two may be lost
OFFER_AGAIN: Final = 2.0  # seconds, while there is no tracker
FAREWELL: Final = 0.5  # seconds for taking an offer back


async def keep_node(path: Path, app: str, use: Callable[[Node], Awaitable[None]]) -> None:
    """Connect to the node, run `use` until the node is lost or `use` returns, and begin again.

    Never returns by itself. `use` may raise NodeError: that is told, and is the end of this round.
    """
    pause = RETRY[0]
    while True:
        try:
            async with connect_node(path, app) as node:
                log.info("connected to node %s", node.name)
                await use(node)
                log.info("node %s went away; waiting for it", node.name)
                pause = RETRY[0]
        except NodeAbsent as error:
            if pause == RETRY[0]:
                log.info("%s", error)
        except NodeError as error:
            log.warning("%s", error)
        except ExceptionGroup as group:  # out of a TaskGroup of `use`
            if group.split(NodeError)[1] is not None:
                raise
            log.warning("%s", group.exceptions[0])
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
        pause = min(2 * pause, RETRY[1])


async def run_at(
    participant: Participant, name: str, use: Callable[[Node], Awaitable[None]]
) -> None:
    """Be an app of the local node `name`, as `keep_node`, until the program is told to end."""
    path = participant.run_dir / f"node-{name}.sock"
    await run_until(participant.stopping, keep_node(path, participant.app, use))


async def run_until(stopping: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Run `work` until `stopping`; what it raises before that is raised here."""
    working = asyncio.create_task(work)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({working, stop}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        working.cancel()
        await asyncio.gather(working, stop, return_exceptions=True)
    if not working.cancelled():
        working.result()


async def keep_offer(
    bus: Bus,
    node: Node,
    port: int,
    kind: str,
    labels: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
) -> None:
    """Tell the tracker, again and again, what this app offers on `port` of `node`; it listens there.

    Beside `labels`, which may be asked for anew each time, it has the name of the node, as `node`. Ends
    when the node is lost; cancel it to take the offer back. A tracker that is away is no fault: it will
    hear of the offer when it is there.
    """
    try:
        while not node.lost.is_set():
            pause = OFFER_AGAIN
            with contextlib.suppress(NodeError, BusError):
                own = labels() if callable(labels) else labels
                said = {"node": node.name, **(own or {})}
                statement = offers.state(kind, said, time.time(), OFFER_LIFETIME)
                signature = await node.vouch(port, statement)
                told = offers.Announcement(node.key, port, statement, signature)
                await bus.request(offers.ANNOUNCE, api.pack(told), timeout=OFFER_EVERY)
                pause = OFFER_EVERY
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.8, 1)):  # noqa: S311 - jitter
                    await node.lost.wait()
    finally:
        with contextlib.suppress(BusError, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                gone = api.pack(offers.Place(node.key, port))
                await bus.request(offers.WITHDRAW, gone, timeout=FAREWELL)
