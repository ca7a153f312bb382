"""`viscript config plan`: what taking over the changed configuration would do, and why."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.config.planning import AppPlan, Change, Effect, Outcome
from viscript.output import document, say
from viscript.roles import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from viscript.client import Client
    from viscript.config import Config
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.config.plan"


class Request(Struct):
    file: str = ""  # to compare with instead of the daemon's own


class Reply(Struct):
    """What differs, and the text it was found in: the document of `viscript config plan --json`."""

    file: str
    digest: str  # SHA-256 of the file
    apps: tuple[AppPlan, ...]
    settings: tuple[Change, ...]
    problems: dict[str, str] = {}  # apps that would have to start and cannot
    warnings: dict[str, str] = {}  # apps that run on and could not be started again

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.apps, self.settings)


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    if request.file:  # what is wrong with a file says something of what is in it
        caller.require_everywhere(Role.ADMIN)
    file = Path(request.file) if request.file else launcher.config.file
    digest, new, outcome = make(launcher, file)
    orders = outcome.orders
    starting = {*orders.restart, *orders.start}
    staying = {x.app for x in launcher.records.values() if x.live and x.app in new.apps} - starting
    return Reply(
        str(file), digest, outcome.apps, outcome.settings,
        problems(new, starting), problems(new, staying),
    )  # fmt: skip


def make(launcher: Launcher, file: Path) -> tuple[str, Config, Outcome]:
    """What `file` says now against what runs; `BadFile`. It is read once, so all three are of one text."""
    from msgspec.structs import replace

    from viscript import catalog, config
    from viscript.config import planning

    text = config.read(file)
    # Wherever a file was written, its relative paths will be relative to the daemon's.
    new = replace(config.parse(text, file), file=launcher.config.file)
    running: dict[str, list[planning.Rows | None]] = {}
    for record in launcher.records.values():
        if record.ad_hoc is not None:  # it never was in the file
            continue
        running.setdefault(record.app, []).append(record.configured)
    files = {name: catalog.fingerprint(new, app) for name, app in new.apps.items()}
    return (
        hashlib.sha256(text).hexdigest(),
        new,
        planning.make(launcher.applied, new, running, files),
    )


def problems(new: Config, names: Iterable[str]) -> dict[str, str]:
    """Of those that cannot be started, as things are: why."""
    from viscript import catalog
    from viscript.errors import BadConfig
    from viscript.preparing import search

    found = {}
    for name in sorted(names):
        try:
            catalog.command(new, new.apps[name], (), search())
        except BadConfig as error:
            found[name] = str(error)
    return found


def run(client: Client, file: str, *, as_json: bool) -> None:
    reply = client.ask(SUBJECT, Request(file), Reply)
    if as_json:
        document(reply)
        return
    tell(reply.outcome)
    for text in (*reply.problems.values(), *reply.warnings.values()):
        say(f"warning: {text}")
    if reply.apps and not file and not reply.problems:
        say("\ntake it over: viscript config apply")


_SIGNS = {"add": "+", "remove": "-", "restart": "!", "change": "~"}


def tell(outcome: Outcome) -> None:
    """For people: a line an app, below it a line a value."""
    if not outcome.apps and not outcome.settings:
        say("nothing changes")
        return
    for app in outcome.apps:
        say(f"{_SIGNS.get(app.does, ' ')} {app.app}: {_consequence(app)}")
        for change in app.changes:
            say(f"    {_line(change)}{_when(change, app)}")
    for change in outcome.settings:
        say(f"~ {_line(change)}  (after `viscript down` and `viscript up`)")
    say(summary(outcome))


def summary(outcome: Outcome) -> str:
    """How many of what, in one line."""
    orders = outcome.orders
    counts = {
        "restarted": _launches(outcome, orders.restart), "stopped": _launches(outcome, orders.stop),
        "started": len(orders.start), "scaled": len(orders.scale),
    }  # fmt: skip
    named = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{named or 'nothing is started, stopped or restarted'}; all others go on"


def disturbed(outcome: Outcome) -> int:
    """How many launches that are up would end."""
    return _launches(outcome, outcome.orders.restart + outcome.orders.stop)


def _launches(outcome: Outcome, names: tuple[str, ...]) -> int:
    return sum(app.running for app in outcome.apps if app.app in names)


def _consequence(app: AppPlan) -> str:
    times = f" ({app.running} times)" if app.running > 1 else ""
    match app:
        case AppPlan(does="add"):
            return f"is started: {app.why}" if app.starts else "is new"
        case AppPlan(does="remove"):
            return f"is stopped{times}: {app.why}" if app.running else "is removed"
        case AppPlan(does="restart"):
            return f"is restarted{times}: {app.why}"
        case AppPlan(starts=True):
            return f"is started: {app.why}"
        case AppPlan(running=0):
            return "changes; it does not run"
        case _:
            return f"changes as it runs{times}"


def _line(change: Change) -> str:
    from viscript.config.shown import text

    return f"{change.key}: {_short(text(change.before))} -> {_short(text(change.after))}"


def _when(change: Change, app: AppPlan) -> str:
    waits = change.effect is Effect.NEXT and app.running and app.does != "restart"
    return "  (at its next start)" if waits else ""


def _short(text: str) -> str:
    first, _, rest = text.partition("\n")
    return f"{first[:59]}…" if rest or len(first) > 60 else first
