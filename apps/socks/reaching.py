"""One connection's way to an exit: the first of those known that can be reached takes it.

An exit that was lost without a word would let its clients wait. So whoever waits for it longer than usual
has it probed, and goes on to the next one when it does not answer.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from apps.socks.choosing import Choice, Exit
from apps.socks.scout import Scout
from nodes.client import Code, Node, NodeError, StreamReset, Unreachable

SETTLING: Final = 5.0  # s after meeting the node in which a missing route is waited for
AGAIN: Final = 0.2  # s between two tries meanwhile
DOUBT: Final = 1.5  # s after which it is asked whether the exit is still there

_T = TypeVar("_T")
Attempt = Callable[[Node, Exit], Coroutine[Any, Any, _T]]


class Reaching:
    """See the module. `use` it with each node there is."""

    def __init__(self, name: str, choice: Choice, scout: Scout) -> None:
        self._name = name  # of the node, for messages
        self._choice = choice
        self._scout = scout
        self._loop = asyncio.get_running_loop()
        self._node: Node | None = None  # None while there is none
        self._settled_at = 0.0  # loop time; until then a route may still be on its way

    async def use(self, node: Node) -> None:
        """Go through this node until it is lost."""
        self._node = node
        self._settled_at = self._loop.time() + SETTLING
        try:
            await self._scout.work(node)
        finally:
            self._node = None

    async def reach(self, attempt: Attempt[_T], client: socket.socket | None = None) -> _T:
        """Carry `attempt` out at the first exit that can be reached; raises NodeError.

        `client` is what it hands over: once that has happened there is no second attempt.
        """
        self._scout.used()
        while True:
            try:
                return await self._first(attempt, client)
            except (Unreachable, StreamReset) as error:
                early = error.code in (Code.NO_ROUTE, Code.NO_LISTENER)
                gone = client is not None and client.fileno() < 0
                if gone or not early or self._loop.time() > self._settled_at:
                    raise
            await asyncio.sleep(AGAIN)

    async def _first(self, attempt: Attempt[_T], client: socket.socket | None) -> _T:
        node = self._node
        if node is None:
            raise NodeError(f"node {self._name!r} is not there")
        order = self._choice.order()
        if len(order) == 1 and not self._choice.fastest:
            return await attempt(node, order[0])
        problem: Unreachable | StreamReset | None = None
        for which in order:
            try:
                return await self._watched(attempt(node, which), which, node)
            except (Unreachable, StreamReset) as error:
                self._choice.failed(which, self._loop.time())
                problem = error
                if client is not None and client.fileno() < 0:
                    break
        raise problem or Unreachable(
            "no exit is known: the tracker lists none, or there is no tracker", Code.NO_ROUTE
        )

    async def _watched(self, attempt: Coroutine[Any, Any, _T], which: Exit, node: Node) -> _T:
        """Raises Unreachable also when the exit was lost without a word."""
        asking = asyncio.create_task(attempt)
        try:
            while True:
                done, _ = await asyncio.wait({asking}, timeout=DOUBT)
                if done:
                    return asking.result()
                if not await self._scout.is_there(which, node):
                    raise Unreachable(f"exit {which.target!r} has gone silent", Code.TIMEOUT)
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})
