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
    from collections.abc import Callable, Sequence

    from nodes.client import Node, Stream

PATIENCE: Final = 10.0  # seconds for an exit's answer
STAGGER: Final = 1.5  # seconds until the next of several exits is asked, too
SILENCE: Final = 2.5 * EVERY  # seconds without a word of the exit, after which it is given up
DOWN: Final = 3.0  # seconds without a session with its node


@dataclass(frozen=True)
class Place:
    """Where an exit listens; `node` is a name or a key."""

    node: str
    port: int = messages.PORT


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

    Each exit is asked `stagger` seconds after the one before, or when that has said no. With 0 all are
    asked at once, and the fastest wins.
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
        for task in asked:
            task.cancel()
        for loser in await asyncio.gather(*asked, return_exceptions=True):
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
