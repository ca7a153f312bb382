"""`viscript reload SEL…`: the signal that makes a program read its configuration again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viscript.commands import follow, order
from viscript.commands.verdict import sentence
from viscript.protocol import Step
from viscript.records import Record

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.desk import Act, Outcome
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.reload"
TIMEOUT = 30.0  # seconds


class Request(order.Request, kw_only=True):
    pass


async def handle(launcher: Launcher, request: Request, caller: Caller) -> order.Reply:
    if known := order.repeated(launcher, request, caller):
        return known
    meant = order.meant(launcher, request.select, caller)

    def act(record: Record) -> Act:
        async def reload(step: Step) -> Outcome:
            from viscript.desk import Outcome

            launcher.reload(order.look(launcher, record.id))
            step.launch = order.look(launcher, record.id).status()
            return Outcome("done", "was told to read its configuration again")

        return reload

    return order.place(launcher, request, caller, "reload", meant, act)


def run(client: Client, select: list[str], how: follow.How, batch: int = 0) -> None:
    request = Request(select=select, batch=batch)
    follow.carry_out(client, SUBJECT, request, how, sentence)
