"""`viscript restart SEL…`: end it and start it again, with its id; what has ended is started anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viscript.commands import follow, order, start
from viscript.protocol import Step
from viscript.records import Record

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.desk import Act, Outcome
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.restart"
TIMEOUT = 220.0  # seconds: the end of the one and the start of the other


class Request(order.Request, kw_only=True):
    pass


async def handle(launcher: Launcher, request: Request, caller: Caller) -> order.Reply:
    if known := order.repeated(launcher, request, caller):
        return known
    meant = order.meant(launcher, request.select, caller, ended=True)

    def act(record: Record) -> Act:
        async def restart(step: Step) -> Outcome:
            before = order.look(launcher, record.id)
            generation = before.generation  # the record changes under our hands
            again = launcher.restart(before)
            after = generation if again.id == record.id else 0
            return await order.settled(launcher, step, again.id, after)

        return restart

    return order.place(launcher, request, caller, "restart", meant, act)


def run(client: Client, select: list[str], how: follow.How, batch: int = 0) -> None:
    request = Request(select=select, batch=batch)
    follow.carry_out(client, SUBJECT, request, how, start.tell)
