"""Starting the daemon from a command, and hearing what it tells."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from viscript.home import PYTHON, Home
from viscript.protocol import Event

PAUSE = 0.1  # seconds after which silence is told, too
LOG_LIMIT = 10 << 20
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def fork_daemon(home: Home, write: int, serve: Callable[[int], int]) -> bool:
    """As `spawn_daemon`, but it needs no interpreter of its own: it is this process as it is now.

    `serve` runs in it, with its number of the pipe's end, and gives its exit code. False where this process
    is not fit for it, as it has threads or sockets of the bus, or reads names on disk as another locale has
    them; then nothing has happened.
    """
    if threading.active_count() > 1 or "zmq" in sys.modules:
        return False
    if sys.getfilesystemencoding() != "utf-8":
        return False
    for stream in (sys.stdout, sys.stderr):  # else it would say again what is only buffered here
        stream.flush()
    _rotate(home)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        if os.fork() == 0:
            _be_daemon(home, write, serve)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write)
    return True


def _be_daemon(home: Home, write: int, serve: Callable[[int], int]) -> NoReturn:
    """In a session of its own, with nothing of the command but its environment."""
    code = 1
    try:
        os.setsid()
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        end = fcntl.fcntl(write, fcntl.F_DUPFD, 3)  # it is kept over `daemon restart`
        os.closerange(3, end)
        os.closerange(end + 1, os.sysconf("SC_OPEN_MAX"))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(home.daemon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
        os.dup2(1, 2)
        os.chdir("/")
        os.environ["VISCRIPT_HOME"] = str(home.root)
        code = serve(end)
    except SystemExit as asked:
        code = asked.code if isinstance(asked.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, it ends here and not in the command
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def spawn_daemon(home: Home, config: Path, write: int, *extra: str) -> None:
    """Start the daemon in a session of its own. It has the pipe's end `write` to tell its events; we do not.

    The pipe is the caller's: whatever interrupts this, its other end tells whether a daemon has begun.
    """
    try:
        _spawn(home, config, write, extra)
    finally:
        os.close(write)


def _rotate(home: Home) -> None:
    if home.daemon_log.exists() and home.daemon_log.stat().st_size > LOG_LIMIT:
        home.daemon_log.replace(home.daemon_log.with_suffix(".log.1"))


def _spawn(home: Home, config: Path, write: int, extra: tuple[str, ...]) -> None:
    _rotate(home)
    argv = [
        *PYTHON, "-P", "-m", "viscript.daemon", "--home", str(home.root),
        "--config", str(config), "--events", str(write), *extra,
    ]  # fmt: skip
    with home.daemon_log.open("ab") as log:
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write,), cwd="/",
            env={**os.environ, "VISCRIPT_HOME": str(home.root)}, start_new_session=True,
        )  # fmt: skip


def events(fd: int, also: Sequence[int] = ()) -> Iterator[Event | None]:
    """What the daemon tells, until it ends.

    None when it said nothing for a moment, or with descriptors in `also` when one of them can be read.
    """
    text = b""
    while True:
        ready = select.select([fd, *also], [], [], None if also else PAUSE)[0]
        if fd not in ready:
            yield None
            continue
        data = os.read(fd, 1 << 16)
        if not data:
            return
        *lines, text = (text + data).split(b"\n")
        for line in lines:
            with suppress(msgspec.MsgspecError):  # torn, as the daemon began again meanwhile
                yield msgspec.json.decode(line, type=Event)


def skip_events(fd: int, enough: Callable[[], bool]) -> None:
    """Read on, whatever is told, until `enough()` or the daemon has ended."""
    while not enough():
        if select.select([fd], [], [], PAUSE)[0] and not os.read(fd, 1 << 16):
            return
