"""`viscript send APP TEXT`: types into the terminal of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.errors import BadUsage, Conflict, Failed, NotFound
from viscript.output import document, say
from viscript.processes import typed
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.records import Record
    from viscript.roles import Caller

SUBJECT = "viscript.send"
MAX_DATA = 4096  # bytes; more than a terminal holds while nobody reads would be lost


class Request(Struct):
    target: str
    data: bytes


class Reply(Struct):
    id: int
    app: str
    bytes: int


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    record = launcher.resolve(request.target)
    caller.require(Role.OPERATE, record)
    if len(request.data) > MAX_DATA:
        raise BadUsage(f"at most {MAX_DATA} bytes at once")
    if problem := await typed(launcher.home.ctl(with_terminal(launcher, record).id), request.data):
        raise Failed(f"{record.app} (ID {record.id}): {problem}")
    return Reply(record.id, record.app, len(request.data))


def with_terminal(launcher: Launcher, record: Record) -> Record:
    """`NotFound` when it does not run, `Conflict` when it has no terminal."""
    report = launcher.report(record.id)
    if report is None or report.state != "running":
        raise NotFound(f"{record.app} (ID {record.id}) does not run; see: viscript la")
    if report.master is None:
        raise Conflict(
            f"{record.app} (ID {record.id}) has no terminal; set `terminal: true` in the configuration, "
            f"then: viscript restart {record.id}"
        )
    return record


def run(client: Client, target: str, data: bytes, *, as_json: bool) -> None:
    if client.known is not None:
        from viscript.commands import fleet

        client, target = fleet.holder(client, target)
    reply = client.ask(SUBJECT, Request(target, data), Reply)
    if as_json:
        document(reply)
    else:
        say(f"typed {reply.bytes} bytes into {reply.app} (ID {reply.id})")
