"""`viscript bus check`: is the broker well? For people and for monitoring, which reads the exit code."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.signals import Varz

app = typer.Typer(add_completion=False, rich_markup_mode=None)

STATES = ("ok", "warning", "critical", "unknown")  # the exit code is the place in it


@dataclass
class Verdict:
    """What was found; the worst of it counts."""

    code: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float | None = None  # of a round trip
    varz: Varz | None = None

    def add(self, code: int, problem: str) -> None:
        self.code = max(self.code, code)
        self.problems.append(problem)


@app.command(
    "check",
    epilog=examples("viscript bus check", "viscript bus check --slow 0.1 --too-slow 1 --json"),
)
def check(
    *,
    slow: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="A round trip of this is a warning.")
    ] = 0.25,
    too_slow: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="A round trip of this is critical.")
    ] = 2.0,
) -> None:
    """Say whether the broker is well, and what is wrong. Exit code 0 ok, 1 warning, 2 critical, 3 unknown."""
    from viscript import options
    from viscript.output import document

    verdict = Verdict()
    _look(verdict, slow, too_slow)
    if options.as_json():
        document(_fields(verdict))
    else:
        _show(verdict)
    raise typer.Exit(verdict.code)


def _look(verdict: Verdict, slow: float, too_slow: float) -> None:
    from bus.signals import HEALTH, VARZ, Health, Varz
    from viscript.commands.bus.connection import Asking
    from viscript.commands.bus.where import here
    from viscript.errors import NoDaemon, Unknown, ViscriptError

    try:
        with Asking(here()) as broker:
            began = time.perf_counter()
            health = broker.ask(HEALTH, None, Health)
            verdict.seconds = time.perf_counter() - began
            verdict.varz = broker.ask(VARZ, None, Varz)
    except (NoDaemon, Unknown) as error:
        verdict.add(2, str(error))
        return
    except ViscriptError as error:
        verdict.add(3, str(error))
        return
    for problem in health.problems:
        verdict.add(1 if health.ok else 2, problem)
    if not health.ok and not health.problems:
        verdict.add(2, "the broker says that it is not well")
    if verdict.seconds >= min(slow, too_slow):
        took = f"a round trip took {verdict.seconds * 1000:.1f} ms"
        verdict.add(2 if verdict.seconds >= too_slow else 1, took)


def _fields(verdict: Verdict) -> dict[str, object]:
    from msgspec.structs import asdict

    seconds = None if verdict.seconds is None else round(verdict.seconds, 6)
    return {
        "state": STATES[verdict.code],
        "code": verdict.code,
        "problems": verdict.problems,
        "seconds": seconds,
        "broker": asdict(verdict.varz) if verdict.varz else None,
    }


def _show(verdict: Verdict) -> None:
    from viscript.output import say, size

    told = "; ".join(verdict.problems)
    varz = verdict.varz
    if varz is not None and verdict.seconds is not None:
        figures = (
            f"{varz.sessions} sessions, {varz.topics} topics, {size(varz.rss)} of memory, "
            f"{size(varz.queued_bytes)} waiting, round trip {verdict.seconds * 1000:.2f} ms"
        )
        told = f"{told} ({figures})" if told else figures
    say(f"{STATES[verdict.code].upper()}: {told}")
