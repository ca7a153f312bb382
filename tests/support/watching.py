"""A command that goes on and on, and what it has written so far: on a pipe, or on a terminal."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.instance import Instance, until


class Watched:
    """The lines of a running command, read as they come."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def objects(self) -> list[dict]:
        return [json.loads(line) for line in list(self.lines)]

    def events(self, number: int) -> list[tuple[str, str]]:
        """Changes of one launch, as told so far."""
        told = [x for x in self.objects if x["kind"] == "event" and x["id"] == number]
        return [(x["from"], x["to"]) for x in told]

    def until_told(self, number: int, state: str, seconds: float = 20.0) -> None:
        until(lambda: any(to == state for _, to in self.events(number)), seconds)

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(10)
        self._reader.join()
        self.process.stdout.close()
        return code


@contextmanager
def watched(made: Instance, *arguments: str) -> Iterator[Watched]:
    """`viscript` with these arguments until the end of the block, then Ctrl-C."""
    command = [sys.executable, "-P", "-m", "viscript.cli", *arguments]
    process = subprocess.Popen(
        command, env=made.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    found = Watched(process)
    try:
        yield found
    finally:
        if process.poll() is None:
            assert found.end() == 130
        else:
            found._reader.join()
            process.stdout.close()


class OnTerminal:
    """A command on a pseudo-terminal: what it has drawn since, and keys for it."""

    def __init__(
        self, made: Instance, *arguments: str, term: str = "xterm", size=(24, 100)
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        command = [sys.executable, "-P", "-m", "viscript.cli", *arguments]
        self.process = subprocess.Popen(
            command, env={**made.environment, "TERM": term}, stdin=slave, stdout=slave,
            stderr=slave, start_new_session=True,
        )  # fmt: skip
        self._drawn = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data:
                return
            self._drawn += data

    @property
    def drawn(self) -> str:
        return self._drawn.decode(errors="replace")

    @property
    def frame(self) -> str:
        """The newest whole screen."""
        whole = self.drawn.split("\x1b[H")
        return whole[-1] if "\x1b[J" in whole[-1] else whole[-2] if len(whole) > 1 else ""

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def end(self) -> tuple[int, list]:
        """Its exit code, and the terminal's attributes as it leaves them."""
        code = self.process.wait(10)
        left = termios.tcgetattr(self._slave)
        os.close(self._slave)
        self._reader.join(5)
        os.close(self._master)
        return code, left
