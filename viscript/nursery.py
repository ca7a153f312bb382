"""The process that keepers are forked from: started when it is first needed, and again when it has died."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viscript import descriptors
from viscript.errors import Failed
from viscript.home import PYTHON
from viscript.keeping import server

TIMEOUT = 20.0  # seconds for a program to be begun


class Nursery:
    """One such process. Its end is ours: it holds the other end of a socket that the kernel closes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The answer of a new keeper; blocks. `Failed` when there is none."""
        try:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    self._pass_on(theirs)
                ours.settimeout(TIMEOUT)
                ours.sendall(json.dumps(request).encode() + b"\n")
                with ours.makefile("rb") as file:
                    answer = file.readline()
                return dict(json.loads(answer))
        except TimeoutError:
            self._give_up()
            raise Failed(f"the keeper has not come up within {TIMEOUT:.0f} s") from None
        except (OSError, ValueError) as error:
            raise Failed(f"the keeper did not come up: {error}") from None

    def warm_up(self) -> None:
        """Have it come up while we do something else."""
        with self._lock:
            if self._control is None:
                self._begin()

    def _pass_on(self, connection: socket.socket) -> None:
        with self._lock:
            if self._control is None or not self._send(connection):
                self._begin()
                if not self._send(connection):
                    raise OSError(
                        "the process that starts keepers ends at once; see the daemon's log"
                    )

    def _give_up(self) -> None:
        """It may have been stopped, or hang: the next request gets another one. Its keepers go on."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
            self.close()

    def _send(self, connection: socket.socket) -> bool:
        assert self._control is not None  # noqa: S101 - called only when it is there
        try:
            socket.send_fds(self._control, [b"."], [connection.fileno()])
        except OSError:  # it has died
            return False
        return True

    def _begin(self) -> None:
        self.close()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = str(Path(__file__).parent.parent)
        with theirs:
            self._process = subprocess.Popen(
                [*PYTHON, "-I", "-S", server.__file__, package], stdin=theirs.fileno(), cwd="/",
                stdout=subprocess.DEVNULL, start_new_session=True, umask=0o077,
                env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            )  # fmt: skip
        self._control.settimeout(TIMEOUT)  # when it takes nothing any more
        descriptors.lower_again(self._process.pid)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def close(self) -> None:
        """It ends; its keepers do not."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            self._process = None


nursery = Nursery()
