"""`viscript bus pub`: publish a message, or many."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import typed
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.client import Bus, Stored

app = typer.Typer(add_completion=False, rich_markup_mode=None)

MAX_COUNT = 1_000_000_000
UNDER_WAY = 64  # stored messages whose OK is awaited at once


@app.command(
    "pub",
    epilog=examples(
        "viscript bus pub app.news 'hello everybody'",
        "date | viscript bus pub app.clock -",
        "viscript bus pub app.picture --file cat.jpg",
        "viscript bus pub app.orders '{\"n\": 7}' --durable --id order-7",
    ),
)
def pub(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT")],
    body: typed.Body = None,
    *,
    file: typed.BodyFile = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=MAX_COUNT, help="Publish it so often.")
    ] = 1,
    durable: Annotated[
        bool,
        typer.Option("--durable", "--wait-ok", help="Wait until a durable topic has it on disk."),
    ] = False,
    message_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Stored once, however often sent; --durable."),
    ] = None,
) -> None:
    """Publish a message. Returns when the broker has it, with --durable when it is stored."""
    from viscript.commands.bus import bodies
    from viscript.commands.bus.connection import attend
    from viscript.errors import BadUsage

    if message_id is not None:
        typed.word("--id", message_id)
    if message_id and count > 1:
        raise BadUsage("--id names one message: it cannot be had with --count")
    content = bodies.given(body, file)
    if durable or message_id:
        attend(lambda bus: _store(bus, subject, content, count, message_id or ""), fast=count > 1)
    else:
        attend(lambda bus: _publish(bus, subject, content, count), fast=count > 1)


async def _publish(bus: Bus, subject: str, body: bytes, count: int) -> None:
    from viscript.output import Progress

    progress = Progress()
    for number in range(count - 1):
        await bus.publish(subject, body)
        if number % 1024 == 0:
            progress.tell(f"{number} of {count} published")
    await publish_surely(bus, subject, body)
    progress.end()
    _told(subject, count, len(body), None)


async def publish_surely(bus: Bus, subject: str, body: bytes) -> None:
    """Publish and hear that the broker has it, and thereby all that we have published before."""
    from bus.errors import NoTopic

    with suppress(NoTopic):  # nobody has asked that it be stored
        await bus.store(subject, body)


async def _store(bus: Bus, subject: str, body: bytes, count: int, message_id: str) -> None:
    import asyncio

    from viscript.output import Progress

    progress = Progress()
    under_way: deque[asyncio.Task[Stored]] = deque()
    last: Stored | None = None
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            if len(under_way) == UNDER_WAY:
                last = await under_way.popleft()
                progress.tell(f"{number} of {count} stored")
            under_way.append(tasks.create_task(bus.store(subject, body, message_id=message_id)))
        for task in under_way:
            last = await task
    progress.end()
    _told(subject, count, len(body), last)


def _told(subject: str, count: int, size: int, stored: Stored | None) -> None:
    from viscript import options
    from viscript.output import document, say

    if options.as_json():
        document(
            {
                "subject": subject,
                "messages": count,
                "bytes": count * size,
                "seq": stored.seq if stored else None,
                "duplicate": bool(stored and stored.duplicate),
            }
        )
        return
    messages = f"{size} bytes" if count == 1 else f"{count} messages of {size} bytes"
    if stored is None:
        say(f"published {messages} to {subject}")
    elif stored.duplicate:
        say(f"{subject}: it was stored before, as {stored.seq}")
    else:
        say(
            f"stored {messages} as {stored.seq}"
            if count == 1
            else f"stored {messages}, up to {stored.seq}"
        )
