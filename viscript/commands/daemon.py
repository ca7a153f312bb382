"""`viscript daemon restart|stop`: of the daemon alone; apps and broker go on, untouched.

To restart, the daemon becomes the program that is installed now: same process, same arguments. It takes over
what runs, as after a `kill -9`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from viscript.errors import Failed, NoDaemon, Unknown, ViscriptError
from viscript.home import is_locked, signal_holder
from viscript.output import document, note, say

if TYPE_CHECKING:
    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.protocol import DaemonInfo
    from viscript.roles import Caller

SUBJECT = "viscript.daemon"
SIGNALS = {"restart": signal.SIGHUP, "stop": signal.SIGTERM}
ANSWERED = 0.05  # seconds after which the answer has left
TIMEOUT = 60.0
GONE = 5.0  # seconds without a lock after which nothing comes any more
PAUSE = 0.05


class Request(Struct):
    do: Literal["restart", "stop"]


class Reply(Struct):
    pid: int


async def handle(_launcher: Launcher, request: Request, _caller: Caller) -> Reply:
    loop = asyncio.get_running_loop()
    loop.call_later(ANSWERED, os.kill, os.getpid(), SIGNALS[request.do])
    return Reply(os.getpid())


def restart(home: Home, config: Path, *, as_json: bool) -> None:
    """`BadConfig` before anything is done; `Failed` when the new one ended at once."""
    from viscript import config as configuration
    from viscript.client import daemon_info

    before = daemon_info(home)
    configuration.load(config)
    _tell(home, "restart")
    info = _again(home, before)
    launches = _launches(home)
    if as_json:
        document({"daemon": info, "launches": launches})
    else:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(launches.items()))
        say(f"the daemon has restarted, pid {info.pid}; untouched: {counts or 'no apps'}")


def stop(home: Home, *, as_json: bool) -> None:
    from viscript.client import daemon_info

    info = daemon_info(home)
    _tell(home, "stop")
    deadline = time.monotonic() + TIMEOUT
    while is_locked(home.lock):
        if time.monotonic() >= deadline:
            raise Unknown(f"the daemon, pid {info.pid}, has not ended yet; see: {home.daemon_log}")
        time.sleep(PAUSE)
    if as_json:
        document({"daemon": {"pid": info.pid, "state": "stopped"}})
    else:
        say("the daemon has ended; apps and broker go on; take them over: viscript up")


def _tell(home: Home, what: Literal["restart", "stop"]) -> None:
    """Over the bus, so that it is decided who may and written down who did; else by a signal."""
    from viscript.client import Client

    try:
        with Client(home) as client:
            client.ask(SUBJECT, Request(what), Reply)
    except (NoDaemon, Unknown) as problem:
        if not signal_holder(home.lock, SIGNALS[what]):
            raise
        note(f"{problem}; it was told by a signal")


def _again(home: Home, before: DaemonInfo) -> DaemonInfo:
    """What the new daemon says of itself, once it does."""
    from viscript.client import daemon_info

    deadline, seen = time.monotonic() + TIMEOUT, time.monotonic()
    while time.monotonic() < deadline:
        if is_locked(home.lock):
            seen = time.monotonic()
        elif time.monotonic() - seen > GONE:
            raise Failed(
                f"the new daemon has not come up: {_last_words(home)}; apps go on; try: viscript up"
            )
        try:
            info = daemon_info(home)
        except NoDaemon:
            info = before
        if info.since != before.since:
            return info
        time.sleep(PAUSE)
    raise Unknown(f"the new daemon is not up yet; see: {home.daemon_log}")


def _last_words(home: Home) -> str:
    from viscript.processes import tail

    told = tail(home.daemon_log, 1)
    return told[0] if told else f"see {home.daemon_log}"


def _launches(home: Home) -> dict[str, int]:
    from viscript.client import Client
    from viscript.commands import status

    try:
        with Client(home) as client:
            return client.ask(status.SUBJECT, status.Request(), status.Reply).launches
    except ViscriptError as problem:
        raise Unknown(f"the daemon has restarted, but does not answer: {problem}") from None
