"""Waiting for launches, in rounds: behind `start`, `sd` and `down`, no command of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from viscript.commands import order
from viscript.errors import NotFound, Unknown
from viscript.records import Record, Status
from viscript.roles import Role
from viscript.supervision.states import FINAL, SETTLED

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.wait"
ROUND = 10.0  # seconds of one request; the answer comes earlier when something changes
MARGIN = 5.0
Until = Literal["settled", "ended"]


class Request(Struct):
    ids: list[int]
    until: Until
    timeout: float


class Reply(Struct):
    launches: list[Status]


def reached(state: str, until: Until) -> bool:
    return state in (FINAL if until == "ended" else SETTLED)


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """Answers as soon as one of them has reached it, else with what is after the time."""

    def one_has() -> bool:
        return any(reached(r.state, request.until) for r in _records(launcher, request.ids))

    for record in _records(launcher, request.ids):
        caller.require(Role.VIEW, record)
    await launcher.wait(one_has, order.bounded(request.timeout, ROUND))
    return Reply([record.status() for record in _records(launcher, request.ids)])


def _records(launcher: Launcher, ids: list[int]) -> list[Record]:
    found = []
    for number in ids:
        record = launcher.records.get(number) or launcher.store.get(number)
        if record is None:
            raise NotFound(f"no launch has the id {number}; see: viscript la --all")
        found.append(record)
    return found


def follow(
    client: Client, ids: list[int], until: Until, timeout: float, told: Callable[[Status], None]
) -> list[Status]:
    """Ask until all have reached it, telling of each; `Unknown` when they have not in time."""
    done: dict[int, Status] = {}
    deadline = time.monotonic() + timeout
    while pending := [number for number in ids if number not in done]:
        left = deadline - time.monotonic()
        if left <= 0:
            late = ", ".join(str(number) for number in pending)
            raise Unknown(f"after {timeout:.0f} s not yet {until}: {late}; see: viscript la")
        request = Request(pending, until, min(left, ROUND))
        for status in client.ask(SUBJECT, request, Reply, timeout=ROUND + MARGIN).launches:
            if reached(status.state, until):
                done[status.id] = status
                told(status)
    return [done[number] for number in ids]
