"""Where a program prints to: a FIFO that it holds open itself, or a terminal of its own."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import stat
import struct
import termios
from typing import TYPE_CHECKING

from viscript.keeping import kernel
from viscript.keeping.child import SPARE

if TYPE_CHECKING:
    from viscript.keeping.log import Log

F_SETPIPE_SZ = 1031
PIPE_BYTES = (
    1 << 18
)  # what the program may print while no keeper reads; all pipes of a user share 64 MiB
RECENT = 1 << 13  # bytes of a terminal that who attaches is shown at once
CHUNK = 1 << 14
ROWS, COLUMNS = 24, 80


class Output:
    """The keeper's end of it."""

    path = ""  # what the program opens; empty: it is given `slave`
    slave = -1  # the program's end, until it has begun
    spare: int | None = None  # number of the program's own descriptor of our end
    ended = False

    def __init__(self, fd: int) -> None:
        """-1: nothing is printed that we could read."""
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def move(self, _log: Log) -> bytes | None:
        """Some of what was printed into the log; None: there is none now. The bytes, if they were seen."""
        return None

    def type(self, _data: bytes) -> str:
        """Why it cannot be typed; empty when it was."""
        return "it has no terminal"

    def resize(self, rows: int, columns: int) -> None:
        """Only a terminal has a size."""

    def recent(self) -> bytes:
        return b""

    def as_shown(self, data: bytes) -> dict[str, str]:
        return {"out": base64.b64encode(data).decode()}


class Pipe(Output):
    """Goes into the log unseen."""

    def __init__(self, path: str, fd: int) -> None:
        super().__init__(fd)
        self.path = path

    @classmethod
    def make(cls, path: str) -> Pipe:
        """A new one: what an earlier run left may hold the old one open."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        os.mkfifo(path, 0o600)
        found = cls.find(path, None)
        with contextlib.suppress(OSError):
            fcntl.fcntl(found.fileno(), F_SETPIPE_SZ, PIPE_BYTES)
        return found

    @classmethod
    def find(cls, path: str, leader: int | None) -> Pipe:
        """The one of a program that runs; that of a keeper of protocol 1 has no name."""
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        for each in (path, f"/proc/{leader}/fd/1") if leader is not None else (path,):
            with contextlib.suppress(OSError):  # it may have closed or redirected its output
                if stat.S_ISFIFO(os.stat(each).st_mode):  # noqa: PTH116
                    return cls(path, os.open(each, flags))
        return cls(path, -1)

    def move(self, log: Log) -> bytes | None:
        return b"" if log.take(self._fd) else None


nothing = Output(-1)


class Terminal(Output):
    """A pseudo terminal, logged, shown to who is attached and typed into."""

    def __init__(self, master: int, slave: int, spare: int | None) -> None:
        super().__init__(master)
        self.slave = slave
        self.spare = spare
        self._recent = b""
        os.set_blocking(master, False)

    @classmethod
    def make(cls) -> Terminal:
        master, slave = os.openpty()
        made = cls(master, slave, SPARE)
        made.resize(ROWS, COLUMNS)
        return made

    @classmethod
    def find(cls, pidfd: int, number: int) -> Output:
        """That of a program whose keeper was killed: the program has a descriptor of it."""
        try:
            return cls(kernel.descriptor_of(pidfd, number), -1, number)
        except OSError:  # it has closed it, or we may not trace it
            return nothing

    def move(self, log: Log) -> bytes | None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # nobody has the other end any more
            data = b""
        self.ended = not data
        log.write(data)
        self._recent = (self._recent + data)[-RECENT:]
        return data

    def type(self, data: bytes) -> str:
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            return problem.strerror or "its terminal is gone"
        return "" if sent == len(data) else f"only {sent} of {len(data)} bytes: it does not read"

    def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def recent(self) -> bytes:
        return self._recent
