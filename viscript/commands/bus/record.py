"""`viscript bus record`: keep what is published in a file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus.sub import CountOption, ForOption, follow
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.client import Bus, Message
    from viscript.recording import Writer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

FLUSH_AFTER = 1.0  # seconds that a message may be in memory only


@app.command(
    "record",
    epilog=examples(
        "viscript bus record 'app.>' day.rec",
        "viscript bus record 'app.>' minute.rec --for 60 --force",
    ),
)
def record(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A MessagePack stream.")],
    *,
    count: CountOption = None,
    seconds: ForOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if there is one.")] = False,
) -> None:
    """Write messages to FILE as they are published, until Ctrl-C."""
    from viscript.commands.bus.connection import attend
    from viscript.commands.bus.where import here
    from viscript.recording import Header, Writer

    place = here()
    with _opened(file, force=force) as opened:
        writer = Writer(opened, Header(pattern, place.address.key, time.time()))
        try:
            attend(
                lambda bus: _record(bus, pattern, count, seconds, _Keeper(writer, opened)),
                place=place, fast=True,
            )  # fmt: skip
        finally:
            opened.flush()
            os.fsync(opened.fileno())
            _told(writer, file)


def _opened(path: Path, *, force: bool) -> IO[bytes]:
    """Only ours to read; `Conflict` when there is a file and it is not to be replaced."""
    from viscript.errors import Conflict

    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    try:
        return os.fdopen(os.open(path, flags, 0o600), "wb")
    except FileExistsError:
        raise Conflict(f"{path}: there is a file already; --force replaces it") from None


async def _record(
    bus: Bus, pattern: str, count: int | None, seconds: float | None, keeper: _Keeper
) -> None:
    subscription = await bus.subscribe(pattern)
    try:
        await follow(subscription, count, seconds, keeper.keep)
    finally:
        keeper.end()


class _Keeper:
    """Writes messages, and tells how far it is."""

    def __init__(self, writer: Writer, file: IO[bytes]) -> None:
        from viscript.output import Progress

        self._writer = writer
        self._file = file
        self._progress = Progress()
        self._due = 0.0

    def keep(self, message: Message) -> None:
        from viscript.output import size
        from viscript.recording import Recorded

        self._writer.add(Recorded(time.time(), message.subject, message.sender, message.body))
        self._progress.tell(f"{self._writer.messages} messages, {size(self._writer.bytes)}")
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + FLUSH_AFTER
            self._file.flush()

    def end(self) -> None:
        self._progress.end()


def _told(writer: Writer, file: Path) -> None:
    from viscript.commands.bus.topics import done
    from viscript.output import size

    fields = {"file": str(file), "messages": writer.messages, "bytes": writer.bytes}
    done(fields, f"{writer.messages} messages, {size(writer.bytes)}, in {file}")
