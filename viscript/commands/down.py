"""`viscript down`: ends everything, dependents first, the broker last; also what a dead daemon left."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.commands import wait
from viscript.commands.sd import describe
from viscript.errors import Conflict, Denied, Failed, NoDaemon, Unknown
from viscript.home import DaemonLock, is_locked, signal_holder
from viscript.output import document, say
from viscript.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.roles import Caller

SUBJECT = "viscript.down"
TIMEOUT = 120.0  # seconds
STARTING = 15.0  # within which a daemon that has begun can be asked
REACH = 2.0  # for another host's broker, as what is ours ends without it too
PAUSE = 0.1


class Request(Struct):
    pass


class Reply(Struct):
    launches: list[Status]  # that have to end


async def handle(launcher: Launcher, _request: Request, _caller: Caller) -> Reply:
    launches = [record.status() for record in launcher.records.values()]
    launcher.down()
    return Reply(launches)


def run(home: Home, config: Path, *, as_json: bool) -> None:
    if not home.exists() and not is_locked(home.lock) and not leftovers(home):
        raise NoDaemon(f"{home.root}: nothing was ever started here")
    ended: dict[int, Status] = {}

    def tell(status: Status) -> None:
        if status.id not in ended:
            ended[status.id] = status
            if not as_json:
                say(describe(status))

    if not end_all(home, config, tell, say if not as_json else lambda _: None):
        raise NoDaemon(f"{home.root}: nothing is running")
    if as_json:
        document({"home": str(home.root), "launches": list(ended.values())})
    else:
        say("down: everything has ended")


def end_all(
    home: Home, config: Path, tell: Callable[[Status], None], remark: Callable[[str], None]
) -> bool:
    """End what runs; `tell` hears of each launch that has ended. False when nothing runs."""
    if is_locked(home.lock):
        try:
            _by_daemon(home, tell)
        except (NoDaemon, Denied) as problem:
            if not _joined(home):
                raise
            # The broker is another host's: away, or it does not let us in any more. What is here is ours.
            remark(f"without the bus: {problem}")
            _end_daemon_alone(home)
        _wait_for_daemon(home)
    elif not leftovers(home):
        return False
    if leftovers(home):
        remark("the daemon is gone; ending what it left")
        _by_a_new_daemon(home, config, tell)
    if leftovers(home):
        raise Failed(f"{home.root}: some of it could not be ended; see: {home.daemon_log}")
    return True


def _joined(home: Home) -> bool:
    return (home.root / "cluster.json").exists()


def _by_daemon(home: Home, tell: Callable[[Status], None]) -> None:
    """Ask the daemon, once it can be, and follow it as long as there is a bus to follow it on."""
    from viscript.client import WAIT, Client

    asked = False
    deadline = time.monotonic() + STARTING
    patience = REACH if _joined(home) else WAIT
    while not asked:
        try:
            with Client(home, patience) as client:
                launches = client.ask(SUBJECT, Request(), Reply).launches
                asked = True
                wait.follow(client, [x.id for x in launches], "ended", TIMEOUT, tell)
        except NoDaemon:
            # The broker may go before the last answer. Anything else shows in what is left.
            if asked or not is_locked(home.lock):
                return
            if time.monotonic() >= deadline or (_joined(home) and home.daemon.exists()):
                raise
            time.sleep(PAUSE)  # it is just starting, or ending


def _end_daemon_alone(home: Home) -> None:
    """Tell the daemon to end without its apps."""
    import signal

    if not signal_holder(home.lock, signal.SIGTERM) and is_locked(home.lock):
        raise Unknown(
            f"{home.root}: its daemon cannot be told to end; end it by a signal, then again: viscript down"
        )


def _wait_for_daemon(home: Home) -> None:
    """Until it has let go of its lock."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            DaemonLock(home).release()
        except Conflict:
            continue
        return
    raise Unknown(f"{home.root}: still stopping after {TIMEOUT:.0f} s; see: {home.daemon_log}")


def _by_a_new_daemon(home: Home, config: Path, tell: Callable[[Status], None]) -> None:
    """Start a daemon that takes over what lives, only to end it."""
    from viscript.protocol import accept
    from viscript.spawning import events, spawn_daemon

    home.create()
    read, write = os.pipe()
    spawn_daemon(home, config, write, "--down")
    for event in events(read):
        if event is not None and event.kind == "error":
            raise accept(event.error, event.text)
        if event is not None and event.launch is not None and event.launch.ended is not None:
            tell(event.launch)
    _wait_for_daemon(home)


def leftovers(home: Home) -> list[Path]:
    """Launches that live although no daemon may."""
    from viscript.processes import Fate, look

    if not home.launches.is_dir():
        return []
    return [folder for folder in home.launches.iterdir() if look(folder)[0] is not Fate.ENDED]
