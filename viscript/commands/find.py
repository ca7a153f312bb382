"""Which launches are meant: behind `ping`, no command of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.records import Status

if TYPE_CHECKING:
    from viscript.launcher import Launcher

SUBJECT = "viscript.find"


class Request(Struct):
    targets: list[str]


class Reply(Struct):
    launches: list[Status]


async def handle(launcher: Launcher, request: Request) -> Reply:
    return Reply([launcher.resolve(word).status() for word in request.targets])
