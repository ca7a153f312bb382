"""`viscript config apply`: take over the changed configuration; only what it changes is touched.

Rules of ours change at once. What must be stopped, started or restarted is a step each of one job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from viscript.commands import follow, order, plan, scale
from viscript.commands.verdict import sentence
from viscript.errors import BadConfig, Conflict
from viscript.output import document, note
from viscript.protocol import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viscript.client import Client
    from viscript.config import Config
    from viscript.config.planning import Outcome
    from viscript.desk import Act, Doing
    from viscript.desk import Outcome as Ending
    from viscript.launcher import Launcher
    from viscript.protocol import Job
    from viscript.records import Record
    from viscript.roles import Caller

SUBJECT = "viscript.config.apply"
TIMEOUT = 220.0  # seconds


class Request(order.Request, kw_only=True):
    digest: str  # of the text that was planned with


async def handle(launcher: Launcher, request: Request, caller: Caller) -> order.Reply:
    if known := order.repeated(launcher, request, caller):
        return known
    digest, new, outcome = plan.make(launcher, launcher.config.file)
    if digest != request.digest:
        raise Conflict(
            f"{launcher.config.file} has changed since it was looked at; look again: viscript config plan"
        )
    for problem in plan.problems(new, {*outcome.orders.restart, *outcome.orders.start}).values():
        raise BadConfig(f"{problem}; nothing was changed")
    records = [record for record in launcher.records.values() if record.ad_hoc is None]
    launcher.adopt_rules(new, outcome.orders.update)
    _note_taken(launcher, outcome, new)
    doings = list(_steps(launcher, outcome, records))
    return order.order(launcher, request, caller, "apply", doings)


def _note_taken(launcher: Launcher, outcome: Outcome, new: Config) -> None:
    """What runs on with new rules is no longer compared with its old ones."""
    from viscript.config import planning

    for record in launcher.records.values():
        app = new.apps.get(record.app)
        if app is not None and record.app in outcome.orders.update:
            record.configured = planning.taken(record.configured, app)
            launcher.store.save(record)


def _steps(launcher: Launcher, outcome: Outcome, records: list[Record]) -> Iterator[Doing]:
    """One for each launch that is touched, and for each app of which only the entry changes."""
    from viscript.desk import Doing

    orders = outcome.orders
    touched = {*orders.stop, *orders.restart, *orders.start}
    for record in records:
        if record.app in orders.stop:
            act = _stopping(launcher, record)
        elif record.app in orders.restart:
            act = _restarting(launcher, record)
        else:
            continue
        yield Doing(Step(record.app, id=record.id, launch=record.status()), f"id:{record.id}", act)
    for app, count in orders.scale:
        yield Doing(Step(app), f"scale:{app}", scale.scaling(launcher, app, count))
        touched.add(app)
    for app in orders.start:
        yield Doing(Step(app), f"start:{app}", _starting(launcher, app))
    for entry in outcome.apps:
        if entry.app not in touched:
            yield Doing(Step(entry.app), f"config:{entry.app}", _taken_over)


async def _taken_over(_step: Step) -> Ending:
    from viscript.desk import Outcome

    return Outcome("done", "is taken over")


def _stopping(launcher: Launcher, record: Record) -> Act:
    async def stop(step: Step) -> Ending:
        if record.live:
            launcher.stop(record)
        step.text = "has ended: it is no longer configured"
        return await order.ended(launcher, step, record.id)

    return stop


def _restarting(launcher: Launcher, record: Record) -> Act:
    async def restart(step: Step) -> Ending:
        before = order.look(launcher, record.id)
        if not before.live:  # ended meanwhile: what it is told to do next is not ours to say
            return await order.ended(launcher, step, record.id)
        launcher.restart(before)
        return await order.settled(launcher, step, record.id, before.generation)

    return restart


def _starting(launcher: Launcher, app: str) -> Act:
    async def start(step: Step) -> Ending:
        first, *others = launcher.begin(app, ())
        outcome = await order.settled(launcher, step, first.id)
        for record in others:
            if outcome.state == "done":
                outcome = await order.settled(launcher, step, record.id)
        return outcome

    return start


def run(client: Client, how: follow.How, batch: int = 0) -> None:
    found = client.ask(plan.SUBJECT, plan.Request(), plan.Reply)
    if how.as_json and how.dry:
        document(found)
    if not how.as_json:
        plan.tell(found.outcome)
    if how.dry or not found.apps:
        if how.as_json and not how.dry:
            document(None)
        return
    _agree(found.outcome, how)
    request = Request(select=[], digest=found.digest, batch=batch)
    agreed = replace(how, yes=True)
    follow.carry_out(client, SUBJECT, request, agreed, sentence, shown=_shown)


def _shown(job: Job) -> object:
    return job


def _agree(outcome: Outcome, how: follow.How) -> None:
    """`Conflict` unless somebody at a terminal agrees to the end of more than one."""
    import sys

    count = plan.disturbed(outcome)
    if how.yes or count < 2:
        return
    if how.as_json or not sys.stdin.isatty():
        raise Conflict(f"{count} that run would be stopped or restarted; add --yes to do that")
    note("")
    print("Do it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Conflict("nothing was done")
