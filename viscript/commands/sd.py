"""`viscript sd ID…`: shut down, over the bus if it listens there, else by TERM and KILL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands import wait
from viscript.errors import Failed
from viscript.output import document, say
from viscript.records import Status
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.stop"
TIMEOUT = 70.0  # seconds: over the bus, TERM, KILL, lost


class Request(Struct):
    targets: list[str]


class Reply(Struct):
    launches: list[Status]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """All or nothing: an unknown target stops none of them."""
    records = [launcher.resolve(word) for word in request.targets]
    for record in records:
        caller.require(Role.OPERATE, record)
    for record in records:
        if record.live:
            launcher.stop(record)
    return Reply([record.status() for record in records])


def run(client: Client, targets: list[str], *, as_json: bool) -> None:
    before = client.ask(SUBJECT, Request(targets), Reply).launches
    gone = {status.id for status in before if status.ended is not None and not _just(status)}
    ids = list(dict.fromkeys(status.id for status in before))

    def tell(status: Status) -> None:
        if not as_json:
            say(describe(status, already=status.id in gone))

    after = wait.follow(client, ids, "ended", TIMEOUT, tell)
    if as_json:
        document(after)
    lost = [status for status in after if status.reason.startswith("lost")]
    if lost:
        raise Failed(f"{lost[0].app} (ID {lost[0].id}): {lost[0].reason}")


def describe(status: Status, *, already: bool = False) -> str:
    how = f"exit {status.exit}" if status.exit is not None else status.reason
    return f"{status.app} (ID {status.id}) {'had ended already' if already else 'has ended'}: {how}"


def _just(status: Status) -> bool:
    """Whether this very request ended it: it had not begun to run."""
    return status.reason.startswith("stopped while")
