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
    from viscript.records import Status
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
    events: int = 0  # the number of the last one


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
        launcher.recorder.events.last if launcher.recorder is not None else 0,
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


def run_apps(client: Client, words: list[str], *, as_json: bool) -> None:
    """What is named, in full; of an app that does not run, its last launch. `NotRunning` then."""
    from viscript.commands import everywhere
    from viscript.commands import list as listing

    request = listing.Request(all=True, select=words)
    answers = everywhere.ask(client, listing.SUBJECT, request, listing.Reply)
    found = [status for reply in answers.replies for status in reply.launches]
    live = {status.app for status in found if status.ended is None}
    newest = {status.app: status.id for status in found}
    shown = [
        x for x in found if x.ended is None or (x.app not in live and newest[x.app] == x.id)
    ]  # fmt: skip
    if as_json:
        document(shown)
    else:
        for status in shown:
            _show_app(status)
    answers.complete()
    down = [x for x in shown if x.state != "running"]
    if down:
        names = ", ".join(f"{x.app} (ID {x.id}) is {x.state}" for x in down[:5])
        raise NotRunning(f"not running: {names}; see: viscript why {down[0].id}")


def _show_app(status: Status) -> None:
    from viscript.topview import duration

    age = duration(time.time() - status.since)
    app = f"{status.host}:{status.app}" if status.host else status.app
    say(f"{app} (ID {status.id})  {status.state} for {age}, since {moment(status.since)}")
    facts = {
        "pid": status.pid, "wanted": status.wanted, "arguments": " ".join(status.args),
        "groups": ", ".join(status.groups), "restarts": status.restarts,
        "failures": status.failures, "last exit": status.exit, "because": status.reason,
        "next try": status.next_try and moment(status.next_try), "key": status.key,
    }  # fmt: skip
    for name, fact in facts.items():
        if fact:
            say(f"  {name:<9} {fact}")
