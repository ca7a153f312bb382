"""Whether what should run does: daemon, broker, keepers, programs, sockets. Looks, and touches nothing."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from viscript import processes
from viscript.client import Client, daemon_info
from viscript.doctor import machine
from viscript.doctor.model import Finding, broken, warning, well
from viscript.errors import Denied, NoDaemon, ViscriptError
from viscript.home import Home, is_locked
from viscript.processes import Fate

PATIENCE = 3.0  # seconds for an answer


def daemon(place: Home, pulse: Callable[[Client], str]) -> list[Finding]:
    """Daemon, broker and the difference of clocks; that none runs is nothing wrong if none should.

    `pulse` asks the daemon how it is, and says so.
    """
    where = str(place.root)
    if not is_locked(place.lock):
        if place.daemon.exists():
            text = "the daemon has ended without `viscript down`"
            return [warning("daemon", text, where, "viscript up")]
        return [well("daemon", "none runs", where)]
    try:
        info = daemon_info(place)
    except NoDaemon as problem:
        return [warning("daemon", str(problem), where, f"look at {place.daemon_log}")]
    try:
        with Client(place) as client:
            yes = well("broker", "answers", info.endpoint)
            return [_answers(client, place, pulse), yes, *_skew(client, info.endpoint)]
    except Denied as problem:
        return [broken("broker", str(problem), info.endpoint, "viscript down, then viscript up")]
    except (ViscriptError, OSError) as problem:
        return [broken("broker", str(problem), info.endpoint, f"look at {place.broker_log}")]


def _answers(client: Client, place: Home, pulse: Callable[[Client], str]) -> Finding:
    try:
        told = pulse(client)
    except (ViscriptError, OSError) as problem:
        todo = f"look at {place.daemon_log}; viscript daemon restart leaves apps untouched"
        return broken("daemon", f"it does not answer: {problem}", str(place.root), todo)
    return well("daemon", f"answers, {told}", str(place.root))


def _skew(client: Client, endpoint: str) -> list[Finding]:
    from bus.errors import BusError
    from bus.signals import VARZ, Varz, pack, unpack

    begin = time.time()
    try:
        varz = unpack(client.ask_broker(VARZ, pack(None), PATIENCE), Varz)
    except (BusError, ViscriptError):
        return []  # our key may not ask; the broker itself answers all the same
    return [machine.skew(varz.now - (begin + time.time()) / 2, endpoint)]


def launches(place: Home) -> list[Finding]:
    """Keepers and programs that nobody looks after."""
    kept, orphaned = [], []
    for folder in _subfolders(place.launches):
        fate, report = processes.look(folder)
        pid = 0 if report is None else report.pid or 0
        if fate is Fate.KEPT:
            kept.append(folder.name)
        elif fate is not Fate.ENDED:
            orphaned.append(f"{folder.name} (pid {pid})")
    where, found = str(place.launches), []
    if kept and not is_locked(place.lock):
        text = f"run without a daemon: {', '.join(kept)}"
        found.append(warning("keepers", text, where, "viscript up takes them over, down ends them"))
    if orphaned:
        text = f"have lost their keepers: {', '.join(orphaned)}"
        todo = "viscript up adopts them, viscript down ends them"
        found.append(warning("orphans", text, where, todo))
    return found or [well("keepers", f"{len(kept)} keepers, none left alone", where)]


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def sockets(place: Home) -> list[Finding]:
    """Sockets in the run folder at which nobody listens any more."""
    if is_locked(place.lock):
        return [well("sockets", "looked after by the daemon", str(place.run))]
    stale = [path for path in _sockets(place.run) if not _listens(path)]
    if not stale:
        return [well("sockets", "none left behind", str(place.run))]
    names = ", ".join(path.name for path in stale)
    todo = "viscript up, then viscript down; or rm them"
    return [warning("sockets", f"nobody listens any more: {names}", str(place.run), todo)]


def _sockets(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if path.is_socket())
    except OSError:
        return


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno not in {errno.ECONNREFUSED, errno.ENOENT}
    return True
