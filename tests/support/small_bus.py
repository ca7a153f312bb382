"""A bus without sockets: requests take a moment, get lost, and find nobody there."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from bus import BusError, DeadlineExceeded, NotPresent, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nodes.links.memory import World


class Broker:
    """Passes requests on after a moment; who is in `away` is not on the bus."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.away: set[str] = set()
        self.lossy = 0.0  # part of the requests of which nothing comes, or no answer
        self.served: dict[str, Participant] = {}  # by subject
        self.present: dict[str, Participant] = {}  # by key
        self.random = random.Random(world.random.random())
        self._arrived: dict[str, float] = {}  # when the last of each arrived

    async def request(
        self, sender: Participant, subject: str, body: bytes, to: str | None, timeout: float
    ) -> bytes:
        await self._pass(sender.key)
        answers = self.present.get(to) if to else self.served.get(subject)
        if sender.key in self.away or self.present.get(sender.key) is not sender:
            raise BusError("off the bus")
        if answers is None or answers.key in self.away or subject not in answers.handlers:
            raise NotPresent(subject)
        lost = self.random.random() < self.lossy
        if lost and self.random.random() < 0.5:
            await asyncio.sleep(timeout)
            raise DeadlineExceeded(subject)
        reply = await answers.handlers[subject](Request(subject, sender.key, body, timeout))
        await self._pass(answers.key)
        if lost or sender.key in self.away:
            await asyncio.sleep(timeout)
            raise DeadlineExceeded(subject)
        return reply

    async def _pass(self, sender: str) -> None:
        """What one participant sends arrives in its order."""
        due = self.world.now + self.random.uniform(0.0005, 0.01)
        due = self._arrived[sender] = max(due, self._arrived.get(sender, 0.0) + 1e-6)
        await asyncio.sleep(due - self.world.now)


class Participant:
    """What a node or the manager has of the bus."""

    def __init__(self, broker: Broker, key: str) -> None:
        self.key = key
        self.handlers: dict[str, Callable[[Request], Awaitable[bytes]]] = {}
        self.events: dict[str, asyncio.Queue[bytes]] = {}
        self._broker = broker
        broker.present[key] = self

    def answer(self, subject: str, handler: Callable[[Request], Awaitable[bytes]]) -> None:
        self.handlers[subject] = handler

    async def serve(self, subject: str, handler: Callable[[Request], Awaitable[bytes]]) -> None:
        self.handlers[subject] = handler
        self._broker.served[subject] = self

    async def request(
        self, subject: str, body: bytes, *, to: str | None = None, timeout: float = 3.0
    ) -> bytes:
        return await self._broker.request(self, subject, body, to, timeout)

    async def publish(self, subject: str, body: bytes) -> None:
        self.publish_nowait(subject, body)

    def publish_nowait(self, subject: str, body: bytes) -> None:
        for other in self._broker.present.values():
            if subject in other.events and other.key not in self._broker.away:
                other.events[subject].put_nowait(body)

    async def subscribe(self, subject: str) -> AsyncIterator[bytes]:
        queue = self.events.setdefault(subject, asyncio.Queue())

        async def come() -> AsyncIterator[bytes]:
            while True:
                yield await queue.get()

        return come()

    def on_reconnect(self, call: Callable[[], None]) -> None:
        pass
