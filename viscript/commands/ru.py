"""`viscript ru ID…`: what launches use: CPU, memory, threads, files, bytes on the bus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.errors import Failed
from viscript.output import document, size, table
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.records import Record
    from viscript.roles import Caller

SUBJECT = "viscript.usage"
INTERVAL = 0.25  # seconds over which the CPU percentage is taken


class Request(Struct):
    targets: list[str]


class Usage(Struct):
    """Of the program and all its children. Bus bytes are null for who is not on the bus."""

    id: int
    app: str
    pid: int
    processes: int
    cpu_percent: float  # of one core, over a quarter of a second
    cpu_seconds: float
    rss: int  # bytes
    threads: int
    open_files: int
    bus_in: int | None  # bytes from the program to the broker
    bus_out: int | None


class Reply(Struct):
    usage: list[Usage]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    import asyncio

    records = [launcher.resolve(word) for word in request.targets]
    for record in records:
        caller.require(Role.VIEW, record)
    return Reply(await asyncio.gather(*(_usage(launcher, record) for record in records)))


async def _usage(launcher: Launcher, record: Record) -> Usage:
    import asyncio

    from viscript.usage import measure

    report, pid = launcher.report(record.id), record.pid
    if report is None or pid is None:
        raise Failed(f"{record.app} (ID {record.id}) is {record.state}: it uses nothing")
    first, began = measure(report.keeper_pid, pid), time.monotonic()
    await asyncio.sleep(INTERVAL)
    second, passed = measure(report.keeper_pid, pid), time.monotonic() - began
    session = await launcher.membership.session(record.key) if launcher.membership else None
    return Usage(
        record.id, record.app, pid, second.processes,
        round(max(0.0, second.cpu_seconds - first.cpu_seconds) / passed * 100, 1),
        round(second.cpu_seconds, 2), second.rss, second.threads, second.files,
        session.bytes_in if session else None, session.bytes_out if session else None,
    )  # fmt: skip


def run(client: Client, targets: list[str], *, as_json: bool) -> None:
    usage = client.ask(SUBJECT, Request(targets), Reply, timeout=15.0).usage
    if as_json:
        document(usage)
        return
    head = (
        "ID",
        "APP",
        "CPU",
        "CPU TIME",
        "MEMORY",
        "PROCS",
        "THREADS",
        "FILES",
        "BUS IN",
        "BUS OUT",
    )
    table(head, [_row(x) for x in usage])


def _row(usage: Usage) -> tuple[str, ...]:
    buses = ["-" if count is None else size(count) for count in (usage.bus_in, usage.bus_out)]
    return (
        str(usage.id), usage.app, f"{usage.cpu_percent:.1f} %", f"{usage.cpu_seconds:.2f} s",
        size(usage.rss), str(usage.processes), str(usage.threads), str(usage.open_files), *buses,
    )  # fmt: skip
