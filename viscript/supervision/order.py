"""Who waits for whom: on the way up for what is needed, on the way down for those that need it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from viscript.rules import After
from viscript.supervision.launch import BROKER, Launch
from viscript.supervision.states import FINAL, UP, State

# Nothing of them that could need another app is known to run.
_NO_LONGER = FINAL | {State.BLOCKED, State.BACKOFF, State.LOST}


class Waiting(Struct, frozen=True):
    """What a launch waits for; `missing` will not come about by itself."""

    apps: tuple[str, ...] = ()
    missing: str = ""


def waiting(launch: Launch, launches: Iterable[Launch], outcomes: Mapping[str, bool]) -> Waiting:
    """`outcomes` tells of apps that have ended whether they did so well."""
    others = [other for other in launches if not other.stop and other.id != launch.id]
    waits = []
    for needed in launch.after:
        mine = [other for other in others if other.app == needed.app]
        if any(_reached(other, needed) for other in mine):
            continue
        comes = [other for other in mine if other.state not in FINAL]
        if not comes and needed.until == "completed" and outcomes.get(needed.app):
            continue
        if not comes:
            return Waiting((), _missing(needed, mine, outcomes))
        waits.append(needed.app)
    return Waiting(tuple(waits))


def _reached(other: Launch, needed: After) -> bool:
    match needed.until:
        case "ready":
            return other.state is State.RUNNING
        case "started":
            return other.state in UP or (other.state is State.STARTING and other.spawned)
        case "completed":
            return False  # what has completed is no longer among the launches


def _missing(needed: After, mine: list[Launch], outcomes: Mapping[str, bool]) -> str:
    app = needed.app
    if mine or outcomes.get(app) is False:
        return f"needs {app}, which has failed; see: viscript why {app}"
    if app in outcomes:
        return f"needs {app}, which has ended; run: viscript start {app}"
    return f"needs {app}, which is not started; run: viscript start {app}"


def may_wait_on(launch: Launch, launches: Iterable[Launch]) -> bool:
    """Whether all that it waits for is on its way, within time limits of its own."""
    needs = {needed.app: needed.until for needed in launch.after}
    for other in launches:
        until = needs.get(other.app)
        if until is None or other.state in UP or other.state is State.BLOCKED:
            continue
        if other.state is State.STARTING and not other.streak:
            continue
        return False
    return True


def dependants(
    launch: Launch, launches: Iterable[Launch], going: Iterable[int] = ()
) -> list[Launch]:
    """All that need this launch, directly or not, and would be left without; the last ones up first.

    While another launch of the same app stays, nobody is left without; those in `going` do not stay.
    """
    everything = [x for x in launches if x.id not in (BROKER, launch.id)]
    found: dict[int, Launch] = {}
    gone = {launch.id, *going}

    def visit(needed: Launch) -> None:
        if any(x.app == needed.app and x.id not in gone and not x.stop for x in everything):
            return
        for other in everything:
            if other.id not in gone and needs(other, needed):
                gone.add(other.id)
                visit(other)
                found[other.id] = other

    visit(launch)
    return list(found.values())


def needs(launch: Launch, other: Launch) -> bool:
    """Whether `launch` needs `other` as long as it runs."""
    return any(x.app == other.app and x.until != "completed" for x in launch.after)


def may_stop(stopping: list[Launch]) -> list[Launch]:
    """Of those that are to stop, which can be ended now: nobody that is to stop as well still needs them."""
    runs = [x for x in stopping if x.state not in _NO_LONGER]
    free = [x for x in runs if not any(needs(y, x) for y in runs if y.id != x.id)]
    on_the_way = any(x.state is State.STOPPING for x in runs)
    return free if free or on_the_way else runs  # a circle: rules have changed while they ran
