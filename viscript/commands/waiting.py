"""`viscript wait SEL… --for WHAT`: until they are ready, have ended, or are in a state."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands import order
from viscript.commands.list import remark
from viscript.errors import BadUsage, NotRunning, Unknown
from viscript.output import document, say
from viscript.records import Status
from viscript.roles import Role
from viscript.supervision.states import FINAL, State

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.await"
TIMEOUT = 150.0  # seconds
ROUND = 10.0  # of one request
MARGIN = 5.0
WORDS = ("ready", "ended")


class Request(Struct):
    select: list[str]
    until: str
    timeout: float


class Reply(Struct):
    """`met`: all are as wanted. `never`: ids that cannot get there any more."""

    launches: list[Status]
    met: bool
    never: list[int]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """Answers as soon as that is known, else after the time."""
    until = check(request.until)
    found = order.meant(launcher, request.select, caller, ended=True, role=Role.VIEW).records
    ids = [record.id for record in found]

    def now() -> Reply:
        launches = [order.look(launcher, number).status() for number in ids]
        missed = [x for x in launches if not reached(x, until)]
        return Reply(launches, not missed, [x.id for x in missed if x.state in FINAL])

    await launcher.wait(
        lambda: now().met or bool(now().never), order.bounded(request.timeout, ROUND)
    )
    return now()


def check(word: str) -> str:
    """`BadUsage` unless it can be waited for."""
    name = word.removeprefix("state=")
    if word in WORDS or name in set(State):
        return word
    known = ", ".join((*WORDS, *(str(state) for state in State)))
    raise BadUsage(f"nothing to wait for: {word[:40]!r}; it is one of {known}")


def reached(status: Status, until: str) -> bool:
    if until == "ready":
        return status.state == State.RUNNING
    if until == "ended":
        return status.state in FINAL
    return status.state == until.removeprefix("state=")


def run(client: Client, select: list[str], until: str, timeout: float, *, as_json: bool) -> None:
    """`NotRunning` when it cannot come about any more, `Unknown` when it has not in time."""
    deadline = time.monotonic() + timeout
    if client.known is None:
        asked = [(client, select)]
    else:
        from viscript.commands import fleet

        found = fleet.meant(client, select, ended=True)
        asked = [(client.at(host), [str(x.id) for x in launches]) for host, launches in found.here]
        if found.away:
            raise found.problem() or Unknown("a host is away; see: viscript host ls")
    replies = [_until(there, words, until, deadline) for there, words in asked]
    launches = [status for reply in replies for status in reply.launches]
    if as_json:
        document(launches)
    late = [_described(x) for x in launches if not reached(x, until)]
    if any(reply.never for reply in replies):
        raise NotRunning(f"{'; '.join(late)}: it does not become {until} any more")
    if late:
        raise Unknown(f"after {timeout:g} s not yet {until}: {'; '.join(late)}; see: viscript la")
    if not as_json:
        for status in launches:
            say(_described(status))


def _until(client: Client, select: list[str], until: str, deadline: float) -> Reply:
    """What one daemon says, once it is there, cannot be any more, or time is up."""
    timeout = max(0.0, deadline - time.monotonic())
    request = Request(select, until, min(timeout, ROUND))
    while True:
        reply = client.ask(SUBJECT, request, Reply, timeout=ROUND + MARGIN)
        left = deadline - time.monotonic()
        if reply.met or reply.never or left <= 0:
            return reply
        request = Request([str(x.id) for x in reply.launches], until, min(left, ROUND))


def _described(status: Status) -> str:
    why = remark(status)
    return f"{status.app} (ID {status.id}) is {status.state}" + (f": {why}" if why else "")
