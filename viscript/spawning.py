"""Starting the daemon from a command, and hearing what it tells."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from viscript.home import Home
from viscript.protocol import Event

PAUSE = 0.1  # seconds after which silence is told, too
LOG_LIMIT = 10 << 20


def spawn_daemon(home: Home, config: Path, write: int, *extra: str) -> None:
    """Start the daemon in a session of its own. It has the pipe's end `write` to tell its events; we do not.

    The pipe is the caller's: whatever interrupts this, its other end tells whether a daemon has begun.
    """
    try:
        _spawn(home, config, write, extra)
    finally:
        os.close(write)


def _spawn(home: Home, config: Path, write: int, extra: tuple[str, ...]) -> None:
    if home.daemon_log.exists() and home.daemon_log.stat().st_size > LOG_LIMIT:
        home.daemon_log.replace(home.daemon_log.with_suffix(".log.1"))
    argv = [
        sys.executable, "-P", "-m", "viscript.daemon", "--home", str(home.root),
        "--config", str(config), "--events", str(write), *extra,
    ]  # fmt: skip
    with home.daemon_log.open("ab") as log:
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write,), cwd="/",
            env={**os.environ, "VISCRIPT_HOME": str(home.root)}, start_new_session=True,
        )  # fmt: skip


def events(fd: int) -> Iterator[Event | None]:
    """What the daemon tells, until it ends; None when it said nothing for a moment."""
    text = b""
    while True:
        if not select.select([fd], [], [], PAUSE)[0]:
            yield None
            continue
        data = os.read(fd, 1 << 16)
        if not data:
            return
        *lines, text = (text + data).split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line, type=Event)


def skip_events(fd: int, enough: Callable[[], bool]) -> None:
    """Read on, whatever is told, until `enough()` or the daemon has ended."""
    while not enough():
        if select.select([fd], [], [], PAUSE)[0] and not os.read(fd, 1 << 16):
            return
