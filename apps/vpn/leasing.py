"""A lease of an exit: who gives one first, and how long it lasts."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apps.vpn import messages
from apps.vpn.messages import EVERY, VERSION, BadMessage, Lease, Over, Request, Status
from nodes.client import NodeError, StreamRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nodes.client import Node, Stream

PATIENCE: Final = 10.0  # seconds for an exit's answer
STAGGER: Final = 1.5  # seconds until the next of several exits is asked, too
SILENCE: Final = 2.5 * EVERY  # seconds without a word of the exit, after which it is given up
DOWN: Final = 3.0  # seconds without a session with its node
FULL: Final = 0.95  # load from which an exit is a last resort
FULL_WEIGHT: Final = 10.0


@dataclass(frozen=True)
class Place:
    """Where an exit listens; `node` is a name or a key."""

    node: str
    port: int = messages.PORT
    load: float = 0.0  # as it was announced, 0 to 1

    @property
    def weight(self) -> float:
        """By what its time for an answer counts, where the fastest is wanted."""
        return FULL_WEIGHT if self.load >= FULL else 1 + self.load


@dataclass(frozen=True)
class Held:
    """A lease that lasts as long as its stream."""

    place: Place
    lease: Lease
    stream: Stream
    took: float  # seconds from the question to the answer


class NoExit(Exception):
    """None of the exits gives a lease; the text says why, of each."""


async def take(node: Node, place: Place) -> Held:
    """A lease of this exit; raises NoExit."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    asked = messages.encode(Request(VERSION))
    try:
        stream = await node.open_stream(place.node, place.port, asked, PATIENCE)
    except StreamRefused as refused:
        raise NoExit(f"{place.node}: {messages.read_refusal(refused.reply).reason}") from None
    except NodeError as error:
        raise NoExit(f"{place.node}: {error}") from None
    try:
        lease = messages.read_lease(stream.reply)
    except BadMessage as error:
        await stream.reset()
        raise NoExit(f"{place.node}: it answers with {error}") from None
    return Held(place, lease, stream, loop.time() - begun)


async def first(node: Node, places: Sequence[Place], stagger: float) -> Held:
    """The lease that comes first; raises NoExit.

    Each exit is asked `stagger` seconds after the one before, or when that has said no.
    """
    waiting = list(places)
    asked: set[asyncio.Task[Held]] = set()
    reasons: list[str] = []
    try:
        while waiting or asked:
            if waiting:
                asked.add(asyncio.create_task(take(node, waiting.pop(0))))
            patience = stagger if waiting else None
            done, asked = await asyncio.wait(
                asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.exception() is None:
                    asked |= done - {task}
                    return task.result()
                reasons.append(str(task.exception()))
        raise NoExit("; ".join(reasons) or "no exit is known")
    finally:
        await _let_go(asked)


async def fastest(node: Node, places: Sequence[Place]) -> Held:
    """The lease of the exit that answers soonest, weighed by its load; raises NoExit.

    All are asked at once. After an answer the others have as long as they could still be the better choice.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    asked = {asyncio.create_task(take(node, place)): place for place in places}
    waiting = set(asked)
    held: list[Held] = []
    reasons: list[str] = []
    best: Held | None = None
    try:
        while waiting:
            patience: float | None = None
            if best is not None:
                lightest = min(asked[task].weight for task in waiting)
                patience = begun + _cost(best) / lightest - loop.time()
                if patience <= 0:
                    break
            done, waiting = await asyncio.wait(
                waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.exception() is None:
                    held.append(task.result())
                else:
                    reasons.append(str(task.exception()))
            best = min(held, key=_cost, default=None)
        if best is None:
            raise NoExit("; ".join(reasons) or "no exit is known")
        asked.pop(next(task for task in asked if task.done() and _gave(task) is best))
        return best
    finally:
        await _let_go(asked)


def _cost(held: Held) -> float:
    return held.took * held.place.weight


def _gave(task: asyncio.Task[Held]) -> Held | None:
    return task.result() if task.exception() is None else None


async def _let_go(asked: Iterable[asyncio.Task[Held]]) -> None:
    """End what is under way, and give back the leases that nobody needs."""
    losers = list(asked)
    for task in losers:
        task.cancel()
    for loser in await asyncio.gather(*losers, return_exceptions=True):
        if isinstance(loser, Held):
            await loser.stream.aclose()


async def attend(held: Held, heard: Callable[[Status], None], down: asyncio.Event) -> str:
    """Keep the lease until it is over; returns why it is. `down` is set while the node has no session."""
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_read(held, heard))
        watching = tasks.create_task(_watch(down))
        telling = tasks.create_task(_tell(held.stream))
        done, _ = await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, watching, telling):
            task.cancel()
        return next(iter(done)).result()


async def _tell(stream: Stream) -> None:
    """Say that we are there; that the stream ended is told by reading."""
    with contextlib.suppress(NodeError):
        while True:
            await stream.write(messages.frame(messages.Alive()))
            await asyncio.sleep(EVERY)


async def _read(held: Held, heard: Callable[[Status], None]) -> str:
    reader = messages.AtClient()
    silence = min(SILENCE, held.lease.lease)
    try:
        while True:
            async with asyncio.timeout(silence):
                data = await held.stream.read()
            if not data:
                return "the exit ended the lease"
            for message in reader.feed(data):
                if isinstance(message, Over):
                    return f"the exit ended the lease: {message.reason}"
                heard(message)
    except TimeoutError:
        return f"nothing was heard of the exit for {silence:g} s"
    except BadMessage as error:
        await held.stream.reset()
        return f"the exit says what it may not: {error}"
    except NodeError as error:
        return f"the stream to the exit ended: {error}"


async def _watch(down: asyncio.Event) -> str:
    """Until there is no session for a while."""
    while True:
        await down.wait()
        await asyncio.sleep(DOWN)
        if down.is_set():
            return "its node cannot be reached"
