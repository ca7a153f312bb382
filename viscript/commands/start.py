"""`viscript start APP [ARGS…]` (`s`): one more launch; waits until it runs or has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands import wait
from viscript.commands.list import remark
from viscript.errors import Failed
from viscript.output import document, say
from viscript.records import Status
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.start"
TIMEOUT = 150.0  # seconds: waiting for others, for the bus, and until it is ready


class Request(Struct):
    app: str
    args: list[str]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Status:
    caller.require(Role.OPERATE, launcher.offered(request.app))
    return launcher.start(request.app, tuple(request.args)).status()


def run(client: Client, app: str, args: list[str], *, as_json: bool) -> None:
    begun = client.ask(SUBJECT, Request(app, args), Status)
    (status,) = wait.follow(client, [begun.id], "settled", TIMEOUT, lambda _: None)
    if as_json:
        document(status)
    failed = status.state in {"failed", "backoff", "lost"}
    if failed:
        raise Failed(
            f"{status.app} (ID {status.id}) did not start well, it is {status.state}: {remark(status)}; "
            f"see: viscript logs {status.id}"
        )
    if not as_json:
        tail = f": {remark(status)}" if status.state == "exited" else f", pid {status.pid}"
        say(f"{status.app} (ID {status.id}) {status.state}{tail}")
