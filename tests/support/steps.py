"""Runs the broker again and again, killed at one step after the other: a fork each, to save Python's start.

`serve` is what they are forked from, with `kill_at_step.c` loaded: it reads lines `STEP TORN` and answers
each with the end of the broker, `exit 0 STEPS` or `signal 9 0`; a line `stop` asks the broker to stop.
"""

import ctypes
import os
import select
import subprocess
import sys
from pathlib import Path

from tests.support.broker import Broker, until

SOURCE = Path(__file__).parents[1] / "system" / "kill_at_step.c"


def build(folder: Path) -> Path:
    library = folder / "kill_at_step.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(SOURCE)], check=True
    )
    return library


class Forks:
    """Brokers in one folder, one at a time."""

    def __init__(self, broker: Broker, library: Path) -> None:
        self.broker = broker
        program = (
            f"import sys; sys.path.insert(0, {str(SOURCE.parents[2])!r}); "
            "from tests.support import steps; steps.serve()"
        )
        self._parent = subprocess.Popen(
            [sys.executable, "-P", "-c", program, str(broker.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "LD_PRELOAD": str(library), "KILL_FILES": "topics.db"},
        )  # fmt: skip
        self.end = ""

    def start(self, step: int, *, torn: bool) -> bool:
        """Start one that dies at a step; False when it was dead before it listened."""
        assert self._parent.stdin is not None
        before = self.broker.log.count("listening")
        self.end = ""
        print(step, int(torn), file=self._parent.stdin, flush=True)
        until(lambda: self.broker.log.count("listening") > before or self.dead(), "listening")
        return not self.dead()

    def dead(self) -> bool:
        assert self._parent.stdout is not None
        if not self.end and select.select([self._parent.stdout], [], [], 0)[0]:
            self.end = self._parent.stdout.readline().strip()
            assert self.end, "the parent of the brokers is gone"
        return bool(self.end)

    def stop(self) -> str:
        """Ask it to stop; tell how it ended."""
        if not self.dead():
            assert self._parent.stdin is not None
            print("stop", file=self._parent.stdin, flush=True)
        until(self.dead, "the broker's end")
        return self.end

    def close(self) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(10)
        assert self._parent.stdout is not None
        self._parent.stdout.close()


def serve() -> None:
    """Fork a broker for each line."""
    from bus import broker, cli  # noqa: F401 - imported once for all

    folder = sys.argv[1]
    for line in sys.stdin:
        if line.strip() == "stop":
            continue  # it was dead already
        step, torn = map(int, line.split())
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _run(folder, step, torn, write)
        os.close(write)
        _await(child)
        counted = os.read(read, 64).decode()
        os.close(read)
        _, status = os.waitpid(child, 0)
        kind = "signal" if os.WIFSIGNALED(status) else "exit"
        code = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        print(kind, code, counted or 0, flush=True)


def _await(child: int) -> None:
    """Wait for its end, or for the word to stop it."""
    descriptor = os.pidfd_open(child)
    ready, _, _ = select.select([descriptor, sys.stdin], [], [])
    if sys.stdin in ready and descriptor not in ready:
        sys.stdin.readline()
        os.kill(child, 15)
        select.select([descriptor], [], [])
    os.close(descriptor)


def _run(folder: str, step: int, torn: int, write: int) -> None:
    from bus import cli

    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    library = ctypes.CDLL(None)
    library.kill_at(ctypes.c_long(step), torn)
    code = 1
    try:
        cli.app(["run", folder], standalone_mode=False)
        code = 0
    except BaseException as error:  # noqa: BLE001 - this process ends here in any case
        code = getattr(error, "exit_code", 1)
        os.write(2, f"{error!r}\n".encode())
    finally:
        os.write(write, str(library.steps()).encode())
        os._exit(code)
