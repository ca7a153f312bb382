"""What both halves of the SOCKS pair need: a node that comes and goes, and quiet logs."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

from nodes.client import Node, NodeAbsent, NodeError, connect_node

log = logging.getLogger("socks")

# Exit codes of both programs, besides 0 and argparse's 2.
NOT_PERMITTED = 4  # a file that must not be read, or that others can read
CONFLICT = 9  # the port is taken

RETRY = 0.2, 2.0  # seconds between two tries to reach the node: the first, and the most


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
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
        pause = min(2 * pause, RETRY[1])


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


class Notes:
    """Log lines about what strangers do: at most one a second, and how many were left out."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._skipped = 0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            self._skipped += 1
            return
        more = f" (and {self._skipped} more lines)" if self._skipped else ""
        self._quiet_until, self._skipped = now + 1, 0
        log.info("%s%s", printable(text), more)


def printable(text: str) -> str:
    """Make text of remote peers fit for a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
