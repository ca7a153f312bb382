"""`viscript bus sub`: show what is published."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import bodies, typed
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.client import Bus, Message, Subscription

app = typer.Typer(add_completion=False, rich_markup_mode=None)

CountOption = Annotated[
    int | None, typer.Option("--count", "-n", min=1, help="End after so many messages.")
]
ForOption = Annotated[
    float | None, typer.Option("--for", metavar="SECONDS", min=0, help="End after so long.")
]


@app.command(
    "sub",
    epilog=examples(
        "viscript bus sub 'app.>'",
        "viscript bus sub 'app.*.temperature' --json | jq .text",
        "viscript bus sub app.jobs --group workers",
        "viscript bus sub app.picture --count 1 --raw > cat.jpg",
    ),
)
def sub(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN")],
    *,
    group: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Share: each message goes to one of the group."),
    ] = None,
    count: CountOption = None,
    seconds: ForOption = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Bodies as they are, a line end after each; none with --count 1."
        ),
    ] = False,
) -> None:
    """Show messages as they are published, until Ctrl-C. With --json a line for each."""
    from viscript.commands.bus.connection import attend

    shared = "" if group is None else typed.word("--group", group)
    show = _shower(raw=raw, count=count)
    attend(lambda bus: _listen(bus, pattern, shared, count, seconds, show), fast=True)


async def _listen(
    bus: Bus, pattern: str, group: str, count: int | None, seconds: float | None,
    show: Callable[[Message], None],
) -> None:  # fmt: skip
    subscription = await bus.subscribe(pattern, group=group)
    await follow(subscription, count, seconds, show)


async def follow(
    subscription: Subscription, count: int | None, seconds: float | None,
    show: Callable[[Message], None], only: frozenset[str] = frozenset(),
) -> int:  # fmt: skip
    """Show what arrives until there were `count` or `seconds` have passed; returns how many there were.

    With `only`, what was published to these subjects.

    Losses are told on standard error. `Unknown` when time was up before `count`.
    """
    import asyncio

    from viscript.errors import Unknown
    from viscript.output import warn

    seen, lost, flush = 0, 0, _Flush()
    try:
        async with asyncio.timeout(seconds):
            async for message in subscription:
                if only and message.subject not in only:
                    continue
                show(message)
                seen += 1
                flush.soon()
                if subscription.lost != lost:
                    warn(f"{subscription.lost - lost} messages were lost: slower than they came")
                    lost = subscription.lost
                if seen == count:
                    break
    except TimeoutError:
        if count is not None:
            raise Unknown(f"{seen} of {count} messages came in {seconds:g} s") from None
    finally:
        sys.stdout.flush()
    return seen


class _Flush:
    """Standard output leaves when the loop has nothing more to show, not for every message."""

    def __init__(self) -> None:
        self._planned = False

    def soon(self) -> None:
        import asyncio

        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._planned = False
        sys.stdout.flush()


def _shower(*, raw: bool, count: int | None) -> Callable[[Message], None]:
    """How messages are shown: as they are, as JSON lines, or as lines for people."""
    from viscript import options

    if raw:
        return _raw(b"" if count == 1 else b"\n")
    return _show_json if options.as_json() else _show_line


def _raw(ending: bytes) -> Callable[[Message], None]:
    def show(message: Message) -> None:
        sys.stdout.buffer.write(message.body + ending)

    return show


def _show_json(message: Message) -> None:
    from viscript.output import line

    shown = {
        "time": round(time.time(), 6),
        "subject": message.subject,
        "from": message.sender,
        "size": len(message.body),
        **bodies.fields(message.body),
    }
    line(shown, flush=False)


def _show_line(message: Message) -> None:
    who, body = _short(message.sender), bodies.readable(message.body)
    sys.stdout.write(f"{message.subject}  {who}  {body}\n")


@functools.lru_cache(maxsize=1024)
def _short(key: str) -> str:
    from bus.identity import short

    return short(key)
