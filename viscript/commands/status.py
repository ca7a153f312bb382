"""`viscript status`: the daemon, its broker, and how many launches are in which state."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from bus.version import VERSION
from viscript.errors import NoDaemon, NotRunning
from viscript.output import document, moment, say
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.client import Client
    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.status"
_BEGAN = time.time()


class Request(Struct):
    pass


class DaemonStatus(Struct):
    pid: int | None
    state: str  # running or stopped
    key: str | None = None
    since: float | None = None
    version: str | None = None
    config: str | None = None


class BrokerStatus(Struct):
    endpoint: str | None
    key: str | None
    pid: int | None = None
    state: str = "stopped"
    restarts: int = 0


class Reply(Struct):
    home: str
    daemon: DaemonStatus
    broker: BrokerStatus
    launches: dict[str, int] = {}  # live ones, by state


async def handle(launcher: Launcher, _request: Request, caller: Caller) -> Reply:
    broker, address = launcher.broker, launcher.place.address
    return Reply(
        str(launcher.home.root),
        DaemonStatus(
            os.getpid(), "running", launcher.place.launcher, _BEGAN, VERSION,
            str(launcher.config.file),
        ),
        BrokerStatus(
            address.endpoint, address.key, launcher.broker_pid,
            broker.state if broker else "stopped", broker.restarts if broker else 0,
        ),
        dict(Counter(str(x.state) for x in launcher.records.values() if caller.may(Role.VIEW, x))),
    )  # fmt: skip


def run(home: Home, client: Client | None, problem: NoDaemon | None, *, as_json: bool) -> None:
    """Prints in any case; `NotRunning` when there is no daemon."""
    if client is not None:
        reply = client.ask(SUBJECT, Request(), Reply)
    else:
        reply = Reply(str(home.root), DaemonStatus(None, "stopped"), BrokerStatus(None, None))
    if as_json:
        document(reply)
    else:
        _show(reply)
    if problem is not None:
        raise NotRunning(str(problem))


def _show(reply: Reply) -> None:
    daemon, broker = reply.daemon, reply.broker
    say(f"home    {reply.home}")
    if daemon.pid is None:
        say("daemon  not running")
        return
    say(f"daemon  running, pid {daemon.pid}, since {moment(daemon.since or 0)}, key {daemon.key}")
    say(f"config  {daemon.config}")
    say(f"broker  {broker.state}, pid {broker.pid}, {broker.endpoint}, key {broker.key}")
    counts = ", ".join(f"{count} {state}" for state, count in sorted(reply.launches.items()))
    say(f"apps    {counts or 'none'}")
