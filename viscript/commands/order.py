"""What all verbs share in the daemon: which launches are meant, and when a launch is as it was wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.errors import NotFound
from viscript.protocol import Job, Step
from viscript.records import Record, Status
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.desk import Act, Doing, Outcome
    from viscript.launcher import Launcher
    from viscript.roles import Caller
    from viscript.selectors import Name

LATELY = 100  # ended launches among which a selector looks
MAX_REQUEST = 64  # characters


class Request(Struct, kw_only=True):
    """An order. The same `request` of the same key is carried out once, however often it arrives."""

    select: list[str]
    request: str = ""
    dry: bool = False  # only say what it would be done to
    several: bool = False  # it is agreed to that these are more than one
    batch: int = 0  # so many at a time; 0: all


class Reply(Struct):
    """The job; without one, what is matched: it was only asked, or is to be agreed to first."""

    job: Job | None = None
    matched: list[Status] = []


class Meant(Struct):
    """What the words of an order name. `several`: more than who typed them may have thought."""

    records: list[Record]
    several: bool


def meant(
    launcher: Launcher,
    words: Sequence[str],
    caller: Caller,
    *,
    ended: bool = False,
    role: Role = Role.OPERATE,
) -> Meant:
    """All or nothing: `NotFound` for a name of nothing, `Denied` for one that is not to be touched.

    A glob or condition matches among what runs, with `ended` also the last launch of what does not; what the
    caller may not even see does not exist for it.
    """
    from viscript import meaning, selectors

    selector = meaning.selected(launcher, words)
    names = selectors.named(selector)
    found: dict[int, Record] = {}
    several = False
    for name in names:
        records = called(launcher, name, caller)
        several |= len(records) > 1 and not _instances(launcher, records)
        found |= {record.id: record for record in records}
    if not names:
        records = selectors.select(selector, _visible(launcher, caller, ended=ended))
        several = len(records) > 1
        found = {record.id: record for record in records}
    if not found:
        what = "runs" if not ended else "is known"
        raise NotFound(f"nothing that {what} matches {selector}; see: viscript la --all")
    for record in found.values():
        caller.require(role, record)
    return Meant(sorted(found.values(), key=lambda record: record.id), several)


def called(launcher: Launcher, name: Name, caller: Caller) -> list[Record]:
    """What lives and has this id or name, and is seen by the caller; `NotFound`."""
    if not name.host and name.what.isdecimal():
        record = launcher.resolve(name.what)
        if not caller.may(Role.VIEW, record):
            raise NotFound(f"no launch has the id {name.what}; see: viscript la --all")
        return [record]
    if not name.host:
        app = launcher.name_of(name.what)
        live = [record for record in launcher.records.values() if record.app == app]
        live = [record for record in live if caller.may(Role.VIEW, record)]
        if not live:
            raise NotFound(f"{app} is not running; start it: viscript start {app}")
        return live
    found = [x for x in _visible(launcher, caller, ended=False) if name.matches(x)]
    if not found:
        raise NotFound(f"nothing that runs matches {name}; see: viscript la")
    return found


def _instances(launcher: Launcher, records: list[Record]) -> bool:
    """Whether these are the instances of one app that is meant to run several times."""
    app = launcher.config.apps.get(records[0].app)
    return getattr(app, "instances", 1) > 1


def _visible(launcher: Launcher, caller: Caller, *, ended: bool) -> list[Record]:
    records = list(launcher.records.values())
    if ended:
        last = {record.slot: record for record in launcher.store.ended(LATELY)}
        taken = {record.slot for record in records}
        session = launcher.store.session
        records += [
            record
            for slot, record in last.items()
            if slot not in taken and record.session == session
        ]
    return [record for record in records if caller.may(Role.VIEW, record)]


def place(
    launcher: Launcher,
    request: Request,
    caller: Caller,
    verb: str,
    records: Meant,
    act: Callable[[Record], Act],
) -> Reply:
    """Make a job of it, unless it is only asked or still to be agreed to."""
    from viscript.desk import Doing

    if request.dry or (records.several and not request.several):
        return Reply(None, [record.status() for record in records.records])
    doings = [
        Doing(Step(x.app, id=x.id, launch=x.status()), f"id:{x.id}", act(x))
        for x in records.records
    ]
    return order(launcher, request, caller, verb, doings)


def order(
    launcher: Launcher, request: Request, caller: Caller, verb: str, doings: Iterable[Doing]
) -> Reply:
    return Reply(
        launcher.desk.order(
            caller, verb, request.request[:MAX_REQUEST], list(doings), max(0, request.batch)
        )
    )


def repeated(launcher: Launcher, request: Request, caller: Caller) -> Reply | None:
    """What came of the same request before: it is not carried out again."""
    job = launcher.desk.known(caller, request.request[:MAX_REQUEST])
    return Reply(job) if job is not None else None


def bounded(seconds: float, most: float) -> float:
    """How long a request is held back: whatever number it asks for, even none."""
    return seconds if 0 <= seconds <= most else most


# When a launch is as it was wanted.


def look(launcher: Launcher, number: int) -> Record:
    """As it is now; `NotFound` when even its record is gone."""
    found = launcher.records.get(number) or launcher.store.get(number)
    if found is None:
        raise NotFound(f"no launch has the id {number}; see: viscript la --all")
    return found


async def settled(launcher: Launcher, step: Step, number: int, after: int = 0) -> Outcome:
    """It runs, or is known not to, in a generation later than `after`."""
    from viscript.desk import Outcome
    from viscript.supervision.states import FINAL, SETTLED

    def known() -> bool:
        record = look(launcher, number)
        begun = record.generation > after or record.state in FINAL
        return step.state != "working" or (begun and record.state in SETTLED)

    step.id, step.launch = number, look(launcher, number).status()
    await launcher.wait(known, None)
    record = look(launcher, number)
    step.launch = record.status()
    if record.state == "running":
        return Outcome("done")
    if record.stop and record.state in FINAL:
        return Outcome("failed", "was stopped before it ran", "conflict")
    if record.state == "exited":
        return Outcome("done", "has ended well")
    return Outcome("failed", f"did not start well, it is {record.state}", "failed")


async def all_settled(launcher: Launcher, step: Step, numbers: Iterable[int]) -> Outcome:
    """All of them run, or how the first that does not has ended."""
    from viscript.desk import Outcome

    outcome = Outcome("done")
    for number in numbers:
        outcome = await settled(launcher, step, number)
        if outcome.state != "done":
            break
    return outcome


async def ended(launcher: Launcher, step: Step, number: int) -> Outcome:
    """Nothing of it is left."""
    from viscript.desk import Outcome
    from viscript.supervision.states import FINAL

    await launcher.wait(
        lambda: step.state != "working" or look(launcher, number).state in FINAL, None
    )
    record = look(launcher, number)
    step.launch = record.status()
    if record.reason.startswith("lost"):
        return Outcome("failed", record.reason, "failed")
    return Outcome("done", step.text)
