"""`viscript sd SEL…`: shut down, over the bus if it listens there, else by the steps of its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viscript.commands import follow, order
from viscript.protocol import Step
from viscript.records import Record, Status
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.desk import Act, Outcome
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.stop"
TIMEOUT = 70.0  # seconds: over the bus, TERM, KILL, lost


class Request(order.Request, kw_only=True):
    pass


async def handle(launcher: Launcher, request: Request, caller: Caller) -> order.Reply:
    if known := order.repeated(launcher, request, caller):
        return known
    meant = order.meant(launcher, request.select, caller)
    meant = order.Meant(_with_dependants(launcher, meant.records, caller), meant.several)

    def act(record: Record) -> Act:
        async def stop(step: Step) -> Outcome:
            if not record.live:
                step.text = ALREADY
                launcher.clear(record)
            else:
                launcher.stop(record)
            return await order.ended(launcher, step, record.id)

        return stop

    return order.place(launcher, request, caller, "stop", meant, act)


def _with_dependants(launcher: Launcher, records: list[Record], caller: Caller) -> list[Record]:
    """What needs one of them is shut down with it; `Denied` if it is not to be touched."""
    found = {record.id: record for record in records}
    for record in records:
        for dependant in launcher.dependants(record, records) if record.live else ():
            caller.require(Role.OPERATE, dependant)
            found.setdefault(dependant.id, dependant)
    return list(found.values())


def run(client: Client, select: list[str], how: follow.How, batch: int = 0) -> None:
    follow.carry_out(client, SUBJECT, Request(select=select, batch=batch), how, tell)


ALREADY = "had ended already"


def tell(step: Step) -> str:
    if step.launch is None:
        return f"{step.app} {step.state}"
    return describe(step.launch, already=step.text == ALREADY)


def describe(status: Status, *, already: bool = False) -> str:
    how = f"exit {status.exit}" if status.exit is not None else status.reason
    return f"{status.app} (ID {status.id}) {ALREADY if already else 'has ended'}: {how}"
