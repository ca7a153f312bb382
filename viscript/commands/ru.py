"""`viscript ru [ID…]`: what launches use: CPU, memory, threads, files, bytes on the bus, and how fast."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands.seen import seen
from viscript.errors import Failed
from viscript.output import document, say, size, table
from viscript.records import Usage
from viscript.supervision.launch import BROKER

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.launcher import Launcher
    from viscript.meter import Target
    from viscript.records import Record
    from viscript.roles import Caller

SUBJECT = "viscript.usage"
DAEMON = -1  # stands for the daemon itself among the targets


class Request(Struct):
    targets: list[str]


class Reply(Struct):
    usage: list[Usage]


async def handle(launcher: Launcher, request: Request, caller: Caller) -> Reply:
    """Of all that run if no target is named; what is named must run."""
    records = seen(launcher, request.targets, caller)
    idle = [record for record in records if _target(launcher, record) is None]
    if idle and (len(records) == 1 or any(not record.live for record in idle)):
        first = idle[0]
        raise Failed(f"{first.app} (ID {first.id}) is {first.state}: it uses nothing")
    measured = {usage.id: usage for usage in await measure(launcher)}
    return Reply([measured[number] for record in records if (number := record.id) in measured])


async def measure(launcher: Launcher) -> list[Usage]:
    """All launches that run, and broker and daemon with their ids 0 and -1."""
    from viscript.meter import Target
    from viscript.usage import Root

    found = [_target(launcher, record) for record in launcher.records.values()]
    targets = [target for target in found if target is not None]
    broker, pid = launcher.report(BROKER), launcher.broker_pid
    if broker is not None and pid is not None:
        targets.append(Target(BROKER, "broker", pid, Root(broker.keeper_pid, pid)))
    targets.append(Target(DAEMON, "daemon", os.getpid(), Root(DAEMON, os.getpid())))
    measured = await launcher.meter.usage(targets, launcher.membership)
    for usage in measured:
        usage.host = launcher.host
    return measured


def _target(launcher: Launcher, record: Record) -> Target | None:
    from viscript.meter import Target
    from viscript.usage import Root

    report, pid = launcher.report(record.id), record.pid
    if report is None or pid is None:
        return None
    root = Root(report.keeper_pid, pid)
    return Target(record.id, record.app, pid, root, record.key, record.instance)


HEAD = (
    "ID", "APP", "CPU", "CPU TIME", "MEMORY", "PROCS", "THREADS", "FILES",
    "BUS IN", "BUS OUT", "IN/s", "OUT/s",
)  # fmt: skip


def run(client: Client, targets: list[str], *, as_json: bool) -> None:
    problem = None
    if client.known is not None:
        from viscript.commands import fleet

        found = fleet.meant(client, targets)
        replies = fleet.gather(
            client, found, SUBJECT, lambda ids: Request(ids if targets else []), Reply, 15.0
        )
        usage = [x for _, reply in replies for x in reply.usage]
        problem = found.problem()
    else:
        usage = client.ask(SUBJECT, Request(targets), Reply, timeout=15.0).usage
    if as_json:
        document(usage)
    elif usage:
        counted = {(x.host, x.app) for x in usage if x.instance}
        table(HEAD, [row(x, one_of_several=(x.host, x.app) in counted) for x in usage])
    else:
        say("Nothing runs. What can be started: viscript apps")
    if problem is not None:
        raise problem


def row(usage: Usage, *, one_of_several: bool = False) -> tuple[str, ...]:
    """Cells under `HEAD`."""
    app = f"{usage.app}:{usage.instance}" if one_of_several else usage.app
    counts = (usage.bus_in, usage.bus_out, usage.bus_in_rate, usage.bus_out_rate)
    return (
        str(usage.id), app, f"{usage.cpu_percent:.1f} %", f"{usage.cpu_seconds:.2f} s",
        size(usage.rss), str(usage.processes), str(usage.threads), str(usage.open_files),
        *("-" if count is None else size(count) for count in counts),
    )  # fmt: skip
