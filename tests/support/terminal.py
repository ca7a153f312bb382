"""A program in a terminal of its own, seen as its user sees it: the screen as text."""

import errno
import os
import pty
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from termios import TIOCSWINSZ

import pyte


class Terminal:
    """Runs `command`; what it draws is in `lines`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, width=120, height=40
    ):
        self._screen = pyte.HistoryScreen(width, height, history=2000)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.code: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(command[0], list(command), {**environment})
            finally:
                os._exit(127)
        ioctl(self._fd, TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    @property
    def lines(self) -> list[str]:
        """All that was drawn, with what has scrolled away, without empty lines at the end."""
        self._read(0.0)
        width = self._screen.columns
        above = [
            "".join(row[x].data for x in range(width)).rstrip() for row in self._screen.history.top
        ]
        lines = [*above, *(line.rstrip() for line in self._screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, wanted: str | Callable[[str], object], seconds: float = 15.0) -> str:
        """The screen as soon as it shows what is wanted."""
        shows = wanted if callable(wanted) else lambda text: wanted in text
        deadline = time.monotonic() + seconds
        while not shows(text := self.text):
            assert time.monotonic() < deadline, f"{wanted!r} is not shown:\n{text}"
            if not self._read(0.1):
                assert shows(self.text), f"{wanted!r} is not shown, it has ended:\n{self.text}"
        return text

    def ended(self, seconds: float = 15.0) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            assert time.monotonic() < deadline, f"it goes on:\n{self.text}"
            self._read(0.05)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
        self._read(0.0)
        return self.code

    def _read(self, wait: float) -> bool:
        """What has come; whether there may be more."""
        while select.select([self._fd], [], [], wait)[0]:
            wait = 0.0
            try:
                data = os.read(self._fd, 65536)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return False
            if not data:
                return False
            self.raw += data
            self._stream.feed(data)
            # prompt_toolkit asks where the cursor is, and waits for the answer.
            if b"\x1b[6n" in data:
                cursor = self._screen.cursor
                os.write(self._fd, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())
        return True

    def close(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        os.close(self._fd)


@contextmanager
def terminal(
    command: Sequence[str], environment: Mapping[str, str], **size: int
) -> Iterator[Terminal]:
    made = Terminal(command, environment, **size)
    try:
        yield made
    finally:
        made.close()
