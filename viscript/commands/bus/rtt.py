"""`viscript bus rtt`: how long the broker takes to answer."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from viscript.commands.bus.connection import Asking

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("rtt", epilog=examples("viscript bus rtt", "viscript bus rtt --count 1000 --json"))
def rtt(
    *,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1_000_000)] = 10,
) -> None:
    """Measure round trips to the broker.

    One small request after the other, encryption included.
    """
    from viscript import options
    from viscript.commands.bus.connection import Asking
    from viscript.commands.bus.where import here
    from viscript.output import Progress, document, say

    place, progress, times = here(), Progress(), list[float]()
    with Asking(place) as broker:
        for number in range(count):
            times.append(_one(broker))
            progress.tell(f"{number + 1} of {count}")
    progress.end()
    times.sort()
    found = {
        "endpoint": place.address.endpoint,
        "count": count,
        "min": round(times[0], 7),
        "median": round(at(times, 0.5), 7),
        "p99": round(at(times, 0.99), 7),
        "max": round(times[-1], 7),
    }
    if options.as_json():
        document(found)
        return
    figures = ", ".join(
        f"{name} {float(found[name]) * 1000:.3f} ms"  # type: ignore[arg-type]
        for name in ("min", "median", "p99", "max")
    )
    say(f"{count} round trips to the broker at {place.address.endpoint}: {figures}")


def _one(broker: Asking) -> float:
    from bus.signals import INFO, BrokerInfo
    from viscript.errors import Denied

    began = time.perf_counter()
    with suppress(Denied):  # said by the broker, which has thereby answered
        broker.ask(INFO, None, BrokerInfo)
    return time.perf_counter() - began


def at(ordered: list[float], part: float) -> float:
    """The value below which `part` of them are."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
