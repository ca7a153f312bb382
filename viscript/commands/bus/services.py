"""`viscript bus services`: who offers what, as the broker counts it or as they tell themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.services import Service
    from bus.signals import ServiceInfo

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "services",
    epilog=examples(
        "viscript bus services",
        "viscript bus services 'app.>' --json",
        "viscript bus services --ask",
    ),
)
def services(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="Only subjects that match.")
    ] = ">",
    *,
    ask: Annotated[
        bool,
        typer.Option("--ask", help="Ask all programs themselves; needs no rights at the broker."),
    ] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.01, max=60, help="For answers to --ask.")
    ] = 1.0,
) -> None:
    """List services and how they do, as the broker counts it.

    With --ask the programs that serve under a name are found by one request to all of them, and tell
    themselves what they did since their start.
    """
    from bus.subjects import is_pattern
    from viscript.errors import BadUsage

    if not is_pattern(pattern):
        raise BadUsage(f"not a pattern: {pattern!r}; words joined by dots, * and a last >")
    if ask:
        _show_programs(pattern, wait)
    else:
        _show_offers(pattern)


def _show_offers(pattern: str) -> None:
    from bus.identity import short
    from bus.signals import SERVICES, Services
    from bus.subjects import covers
    from viscript.commands.bus.connection import ask_all
    from viscript.output import listing

    found = [s for s in ask_all(SERVICES, Services).services if covers(pattern, s.subject)]
    head = ("SUBJECT", "NAME", "VERSION", "KEY", "AT WORK", "REQUESTS", "ERRORS", "MEAN", "")
    rows = (
        (
            s.subject, s.name, s.ver, short(s.key), _at_work(s), str(s.requests), str(s.errors),
            _mean(s.requests, s.seconds), s.desc,
        )
        for s in found
    )  # fmt: skip
    listing(found, head, rows, "No services. Offer one: viscript bus reply --help")


def _at_work(service: ServiceInfo) -> str:
    return f"{service.inflight} of {service.limit}" if service.limit else str(service.inflight)


def _mean(requests: int, seconds: float) -> str:
    return f"{seconds / requests * 1000:.2f} ms" if requests else "-"


def _show_programs(pattern: str, wait: float) -> None:
    from viscript.commands.bus.connection import attend
    from viscript.output import listing

    found = [s for s in attend(lambda bus: bus.discover(timeout=wait)) if _offers(s, pattern)]
    head = ("NAME", "VERSION", "PROGRAM", "KEY", "SUBJECTS", "REQUESTS", "ERRORS", "MEAN", "")
    none = "No program answered. Offer a service: viscript bus reply --help"
    listing(found, head, map(_row, found), none)


def _offers(service: Service, pattern: str) -> bool:
    from bus.subjects import covers

    return pattern == ">" or any(covers(pattern, e.subject) for e in service.endpoints)


def _row(service: Service) -> tuple[str, ...]:
    from bus.identity import short

    subjects = " ".join(endpoint.subject for endpoint in service.endpoints)
    return (
        service.name, service.version, service.id[:8], short(service.key), subjects,
        str(service.requests), str(service.errors), _mean(service.requests, service.seconds),
        service.description,
    )  # fmt: skip
