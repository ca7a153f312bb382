"""`viscript bus replay`: publish again what was recorded."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.client import Bus
    from viscript.recording import Reader, Recorded

app = typer.Typer(add_completion=False, rich_markup_mode=None)

RESERVED = "$SYS."  # only the broker speaks there


@app.command(
    "replay",
    epilog=examples(
        "viscript bus replay day.rec",
        "viscript bus replay day.rec --speed 60",
        "viscript bus replay day.rec --max",
    ),
)
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="-: standard input.")],
    *,
    speed: Annotated[
        float, typer.Option(metavar="TIMES", min=0.001, help="As fast as it was, times this.")
    ] = 1.0,
    fastest: Annotated[bool, typer.Option("--max", help="Without the pauses.")] = False,
) -> None:
    """Publish a recording again.

    With the pauses between its messages; they come from our own key.
    """
    from viscript.commands.bus.connection import attend
    from viscript.errors import NotFound
    from viscript.recording import Reader

    try:
        opened: IO[bytes] = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except FileNotFoundError:
        raise NotFound(f"{file}: no such file") from None
    name = "standard input" if str(file) == "-" else str(file)
    with opened:
        reader = Reader(opened, name)
        attend(lambda bus: _replay(bus, reader, name, 0.0 if fastest else speed), fast=True)


async def _replay(bus: Bus, reader: Reader, name: str, speed: float) -> None:
    """`speed` 0: without pauses."""
    import asyncio

    from viscript.commands.bus.pub import publish_surely
    from viscript.commands.bus.topics import done
    from viscript.output import Progress, warn

    progress, sent, skipped = Progress(), 0, 0
    pace: _Pace | None = None
    for message, last in _with_last(iter(reader)):
        if speed:
            pace = pace or _Pace(message.time, speed)
            pause = pace.until(message.time)
            if pause > 0:
                await asyncio.sleep(pause)
        if message.subject.startswith(RESERVED):
            skipped += 1
            continue
        publish = publish_surely if last else type(bus).publish
        await publish(bus, message.subject, message.body)
        sent += 1
        progress.tell(f"{sent} messages published")
    progress.end()
    if reader.truncated:
        warn(f"{name}: ends in the middle of a message; all before it was published")
    if skipped:
        warn(f"{name}: {skipped} messages of the broker ({RESERVED}>) were left out")
    done({"messages": sent, "skipped": skipped}, f"{sent} messages published")


class _Pace:
    """When a message is due, from when it was recorded."""

    def __init__(self, first: float, speed: float) -> None:
        self._first = first
        self._speed = speed
        self._began = time.monotonic()

    def until(self, recorded: float) -> float:
        """Seconds from now; a clock that jumped back makes no pause."""
        return self._began + (recorded - self._first) / self._speed - time.monotonic()


def _with_last(messages: Iterator[Recorded]) -> Iterator[tuple[Recorded, bool]]:
    """Each with whether it is the last."""
    held = next(messages, None)
    while held is not None:
        following = next(messages, None)
        yield held, following is None
        held = following
