"""Which launches are meant: behind `ping`, no command of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.records import Status
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.find"


class Request(Struct):
    targets: list[str]


class Reply(Struct):
    launches: list[Status]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    records = [launcher.resolve(word) for word in request.targets]
    for record in records:
        caller.require(Role.VIEW, record)
    return Reply([record.status() for record in records])
