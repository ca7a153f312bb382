"""`viscript start APP [ARGS…]` (`s`): one more launch; waits until it runs or has failed.

A selector starts what matches of the configuration and does not run; an id starts again what has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from viscript.commands import follow, order
from viscript.commands.list import remark
from viscript.errors import BadUsage, Conflict, NotFound
from viscript.protocol import Step
from viscript.records import Record, Status
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.desk import Act, Doing, Outcome
    from viscript.launcher import Launcher
    from viscript.roles import Caller
    from viscript.selectors import Selector

SUBJECT = "viscript.start"
TIMEOUT = 150.0  # seconds: waiting for others, for the bus, and until it is ready


class Request(order.Request, kw_only=True):
    args: list[str] = msgspec.field(default_factory=list)


async def handle(launcher: Launcher, request: Request, caller: Caller) -> order.Reply:
    from viscript import meaning, selectors

    if known := order.repeated(launcher, request, caller):
        return known
    if any("\0" in word for word in request.args):
        raise BadUsage("no argument may hold a NUL character")
    selector = meaning.selected(launcher, request.select)
    names = selectors.named(selector)
    if names:
        things = [_startable(launcher, str(name), caller) for name in names]
    else:
        things = _matching(launcher, selector, caller)
    if request.dry or (len(things) > 1 and not names and not request.several):
        return order.Reply(None, [_shown(thing) for thing in things])
    if len(things) == 1:  # what is wrong with it is said at once, not by a job
        doings = [_wait(launcher, x) for x in _begin(launcher, things[0], request.args)]
    else:
        doings = [_later(launcher, thing, request.args) for thing in things]
    return order.order(launcher, request, caller, "start", doings)


def _startable(launcher: Launcher, word: str, caller: Caller) -> str | Record:
    """The app, or the launch that has ended; `NotFound`, `Denied`, `Conflict` when it has not."""
    if word.isdecimal():
        record = launcher.resolve(word)
        caller.require(Role.OPERATE, record)
        if record.live:
            raise Conflict(
                f"{record.app} (ID {word}) is {record.state}; see: viscript restart {word}"
            )
        return record
    offered = launcher.offered(word)
    caller.require(Role.OPERATE, offered)
    return offered.app


def _matching(launcher: Launcher, selector: Selector, caller: Caller) -> list[str | Record]:
    """What of the configuration matches and does not run."""
    runs = {record.app for record in launcher.records.values()}
    apps = [launcher.offered(name) for name in launcher.config.apps]
    found = [x for x in apps if caller.may(Role.VIEW, x) and selector.matches(x)]
    if not found:
        raise NotFound(f"no app in {launcher.config.file} matches {selector}; see: viscript apps")
    stopped = [x for x in found if x.app not in runs]
    if not stopped:
        raise Conflict(f"all that match {selector} run already; see: viscript la")
    for offered in stopped:
        caller.require(Role.OPERATE, offered)
    return [offered.app for offered in stopped]


def _shown(thing: str | Record) -> Status:
    if isinstance(thing, Record):
        return thing.status()
    return Status(id=0, app=thing, state="", key="", since=0.0, args=[], started=0.0)


def _begin(launcher: Launcher, thing: str | Record, args: list[str]) -> list[Record]:
    """One launch, or all instances of an app that is to run several times."""
    if isinstance(thing, Record):
        return [launcher.restart(thing)]
    return launcher.begin(thing, tuple(args))


def _wait(launcher: Launcher, record: Record) -> Doing:
    from viscript.desk import Doing

    act: Act = lambda step: order.settled(launcher, step, record.id)  # noqa: E731
    return Doing(Step(record.app, id=record.id), f"id:{record.id}", act)


def _later(launcher: Launcher, thing: str | Record, args: list[str]) -> Doing:
    from viscript.desk import Doing

    async def act(step: Step) -> Outcome:
        begun = [record.id for record in _begin(launcher, thing, args)]
        return await order.all_settled(launcher, step, begun)

    app = thing if isinstance(thing, str) else thing.app
    return Doing(Step(app), f"start:{app}", act)


def run(client: Client, app: str, args: list[str], how: follow.How) -> None:
    if client.known is not None:
        client, app = client.for_app(app)
    request = Request(select=[app], args=args)
    follow.carry_out(client, SUBJECT, request, how, tell, one=not _GLOB & set(app))


def tell(step: Step) -> str:
    status = step.launch
    if status is None:
        return f"{step.app} {step.state}"
    tail = f": {remark(status)}" if status.state == "exited" else f", pid {status.pid}"
    return f"{status.app} (ID {status.id}) {status.state}{tail}"


_GLOB = frozenset("*?[@= ")
