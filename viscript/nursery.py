"""The process that keepers are forked from: started when it is first needed, and again when it has died."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
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
SPARES = 64  # keepers that are forked beforehand
PART = 1 << 16  # bytes of an answer that are read at once


class Nursery:
    """One such process. Its end is ours: it holds the other end of a socket that the kernel closes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The answer of a new keeper; blocks. `Failed` when there is none."""
        try:
            with self._connection() as ours:
                ours.settimeout(TIMEOUT)
                ours.sendall(_line(request))
                with ours.makefile("rb") as file:
                    return _answer(file.readline())
        except TimeoutError:
            self._give_up()
            raise _late() from None
        except OSError as error:
            raise _none(error) from None

    async def asked(self, request: Mapping[str, object]) -> dict[str, Any]:
        """`ask`, while others go on: without a thread, unless keepers have nothing to be forked from yet."""
        import asyncio  # while it comes up

        loop = asyncio.get_running_loop()
        try:
            found = self._connection_at_once()
            with await asyncio.to_thread(self._connection) if found is None else found as ours:
                ours.settimeout(0)
                async with asyncio.timeout(TIMEOUT):
                    await loop.sock_sendall(ours, _line(request))
                    line = b""
                    while not line.endswith(b"\n") and (part := await loop.sock_recv(ours, PART)):
                        line += part
                return _answer(line)
        except TimeoutError:
            await asyncio.to_thread(self._give_up)
            raise _late() from None
        except OSError as error:
            raise _none(error) from None

    def warm_up(self) -> None:
        """Have it come up while we do something else."""
        with self._lock:
            if self._control is None:
                self._begin()

    def prepare(self, count: int) -> None:
        """So many programs are about to begin, and others have something to do until then."""
        with self._lock, contextlib.suppress(OSError):
            if self._control is not None and count > 0:
                self._control.send(str(min(count, SPARES)).encode())

    def _connection(self) -> socket.socket:
        """To what will be a keeper."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._pass_on(theirs)
            except BaseException:
                ours.close()
                raise
        return ours

    def _connection_at_once(self) -> socket.socket | None:
        """None where it would have to be waited for."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._control is None:
                return None
            ours, theirs = socket.socketpair()
            with theirs:
                if self._send(theirs, socket.MSG_DONTWAIT):
                    return ours
            ours.close()
            return None
        finally:
            self._lock.release()

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

    def _send(self, connection: socket.socket, flags: int = 0) -> bool:
        assert self._control is not None  # noqa: S101 - called only when it is there
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", connection.fileno()))]
        try:
            self._control.sendmsg([b"."], passed, flags)
        except OSError:  # it has died, or takes nothing just now
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


def _line(request: Mapping[str, object]) -> bytes:
    return json.dumps(request).encode() + b"\n"


def _answer(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError as error:
        raise _none(error) from None


def _late() -> Failed:
    return Failed(f"the keeper has not come up within {TIMEOUT:.0f} s")


def _none(error: Exception) -> Failed:
    return Failed(f"the keeper did not come up: {error}")


nursery = Nursery()
