"""`viscript scale APP N`: as many instances as wanted, app:0 and up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viscript.commands import follow, order
from viscript.commands.verdict import sentence
from viscript.errors import BadUsage
from viscript.protocol import Step
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.desk import Act, Outcome
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.scale"
TIMEOUT = 220.0  # seconds
MOST = 1000


class Request(order.Request, kw_only=True):
    count: int


async def handle(launcher: Launcher, request: Request, caller: Caller) -> order.Reply:
    from viscript.desk import Doing

    if known := order.repeated(launcher, request, caller):
        return known
    if len(request.select) != 1 or not 0 <= request.count <= MOST:
        raise BadUsage(f"scale one app, to between 0 and {MOST} instances")
    offered = launcher.offered(request.select[0])
    caller.require(Role.OPERATE, offered)
    if not request.count:  # what needs it stops with the last of them
        going = [x for x in launcher.records.values() if x.app == offered.app]
        for record in going:
            for dependant in launcher.dependants(record, going):
                caller.require(Role.OPERATE, dependant)
    if request.dry:
        live = [x.status() for x in launcher.records.values() if x.app == offered.app]
        return order.Reply(None, live)

    act = scaling(launcher, offered.app, request.count)
    doing = Doing(Step(offered.app), f"scale:{offered.app}", act)
    return order.order(launcher, request, caller, "scale", [doing])


def scaling(launcher: Launcher, app: str, count: int) -> Act:
    """A step of a job that ends when so many run."""

    async def scale(step: Step) -> Outcome:
        return await _scale(launcher, step, app, count)

    return scale


async def _scale(launcher: Launcher, step: Step, app: str, count: int) -> Outcome:
    from viscript.desk import Outcome

    wanted = [record.id for record in launcher.scale(app, count)]
    outcome = await order.all_settled(launcher, step, wanted)
    if outcome.state != "done":
        return outcome
    others = [x.id for x in launcher.records.values() if x.app == app and x.id not in wanted]
    for number in others:
        outcome = await order.ended(launcher, step, number)
        if outcome.state != "done":
            return outcome
    step.id, step.launch = None, None
    return Outcome("done", f"runs {len(wanted)} time{'s' if len(wanted) != 1 else ''}")


def run(client: Client, app: str, count: int, how: follow.How) -> None:
    there, app = client.for_app(app)
    request = Request(select=[app], count=count)
    follow.carry_out(there, SUBJECT, request, how, sentence, shown=lambda job: job)
