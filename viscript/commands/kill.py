"""`viscript kill SEL… [-s SIGNAL]`: a signal to all processes; the restart rule decides on what follows."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from viscript.commands import follow, order
from viscript.commands.verdict import sentence
from viscript.errors import BadUsage
from viscript.protocol import Step
from viscript.records import Record

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.desk import Act, Outcome
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.kill"
TIMEOUT = 30.0  # seconds


class Request(order.Request, kw_only=True):
    signal: int = signal.SIGTERM


async def handle(launcher: Launcher, request: Request, caller: Caller) -> order.Reply:
    if known := order.repeated(launcher, request, caller):
        return known
    name = named(request.signal)
    meant = order.meant(launcher, request.select, caller)

    def act(record: Record) -> Act:
        async def kill(step: Step) -> Outcome:
            from viscript.desk import Outcome

            launcher.kill(order.look(launcher, record.id), request.signal)
            step.launch = order.look(launcher, record.id).status()
            return Outcome("done", f"was sent {name}")

        return kill

    return order.place(launcher, request, caller, "kill", meant, act)


def run(client: Client, select: list[str], number: int, how: follow.How, batch: int = 0) -> None:
    request = Request(select=select, signal=number, batch=batch)
    follow.carry_out(client, SUBJECT, request, how, sentence)


def number(word: str) -> int:
    """TERM, SIGTERM, term or 15; `BadUsage`."""
    if word.isdecimal() and len(word) < 4:
        named(int(word))
        return int(word)
    name = word.upper()
    found = signal.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
    if found is None:
        from viscript.words import did_you_mean

        known = [name.removeprefix("SIG") for name in signal.Signals.__members__]
        hint = did_you_mean(name.removeprefix("SIG"), known) or "; see: kill -l"
        raise BadUsage(f"no signal {word!r}{hint}")
    return int(found)


def named(number: int) -> str:
    """SIGTERM for 15; `BadUsage` when there is no such signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return f"signal {number}"
        raise BadUsage(f"no signal has the number {number}; see: kill -l") from None
