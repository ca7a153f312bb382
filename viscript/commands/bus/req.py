"""`viscript bus req`: ask who serves a subject, one participant, or all."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus import complete, typed
from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus.client import Bus

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "req",
    epilog=examples(
        "viscript bus req app.translate 'good morning'",
        "viscript bus req signal.ping --to KEY",
        "viscript bus req app.export --stream > export.bin",
        "viscript bus req app.who --all --timeout 1",
    ),
)
def req(  # noqa: PLR0913 - a request has these
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", autocompletion=complete.services)],
    body: typed.Body = None,
    *,
    file: typed.BodyFile = None,
    to: Annotated[
        str | None, typer.Option(metavar="KEY", help="Ask this participant and nobody else.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, max=86400, help="Wait no longer.")
    ] = 5.0,
    stream: Annotated[
        bool, typer.Option("--stream", help="The answer comes in pieces, shown as they come.")
    ] = False,
    everybody: Annotated[
        bool, typer.Option("--all", help="Ask all who serve it; show every answer.")
    ] = False,
    idempotent: Annotated[
        bool, typer.Option("--idempotent", help="Carried out once, also if asked again on the way.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The answer as it is, byte for byte.")] = False,
) -> None:
    """Ask, and show the answer. Exit code 5 at once when there is nobody to ask, 7 when time is up."""
    from viscript.commands.bus import bodies
    from viscript.commands.bus.connection import attend
    from viscript.errors import BadUsage

    if sum((stream, everybody, idempotent)) > 1 or (everybody and to):
        raise BadUsage(
            "--stream, --all and --idempotent exclude each other, and --to excludes --all"
        )
    content, whom = bodies.given(body, file), typed.key(to) if to else None

    async def work(bus: Bus) -> None:
        show = _shower(subject, raw=raw)
        if everybody:
            await _ask_all(bus, subject, content, timeout, raw=raw)
        elif stream:
            async for chunk in bus.stream(subject, content, to=whom, timeout=timeout):
                show(chunk)
        else:
            show(
                await bus.request(subject, content, to=whom, timeout=timeout, idempotent=idempotent)
            )

    attend(work)


def _shower(subject: str, *, raw: bool) -> Callable[[bytes], None]:
    """How one answer is shown; seconds count from here."""
    from viscript import options
    from viscript.commands.bus import bodies
    from viscript.output import line, say

    began = time.perf_counter()

    def show(answer: bytes) -> None:
        if options.as_json():
            seconds = round(time.perf_counter() - began, 6)
            line({"subject": subject, "seconds": seconds, **bodies.fields(answer)})
        elif raw:
            sys.stdout.buffer.write(answer)
            sys.stdout.flush()
        else:
            say(bodies.readable(answer))

    return show


async def _ask_all(bus: Bus, subject: str, body: bytes, timeout: float, *, raw: bool) -> None:
    from bus.identity import short
    from viscript import options
    from viscript.commands.bus import bodies
    from viscript.output import line, say

    async for answer in bus.gather(subject, body, timeout=timeout):
        problem = str(answer.error) if answer.error else None
        if options.as_json():
            shown = {"error": problem} if answer.error else bodies.fields(answer.body)
            line({"subject": subject, "from": answer.sender, **shown})
        elif raw:
            sys.stdout.buffer.write(answer.body + b"\n")
            sys.stdout.flush()
        else:
            shown_body = f"refused: {problem}" if problem else bodies.readable(answer.body)
            say(f"{short(answer.sender)}  {shown_body}")
