"""Who is connected to a keeper: what they said, and what is still to be told to them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from typing import Any

LINE = 1 << 16  # bytes of one order
BACKLOG = (
    1 << 18
)  # bytes that wait for who reads slower than a program prints; it misses what comes then
STALLED = 1.0  # seconds for which such a one may take nothing; then it is cut off


class Visitor:
    """One connection: JSON lines both ways, bounded."""

    def __init__(self, connection: socket.socket) -> None:
        os.set_blocking(connection.fileno(), False)
        self._connection = connection
        self._heard = b""
        self._waiting = b""
        self._took = time.monotonic()
        self.viewer = False  # is shown the terminal
        self.writer = False  # may type

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def is_owner(self) -> bool:
        credentials = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return bool(struct.unpack("3i", credentials)[1] in (os.getuid(), 0))

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    def orders(self) -> list[dict[str, Any]] | None:
        """Whole lines that have come, rubbish as an empty order; None when it has gone or says too much."""
        try:
            data = self._connection.recv(LINE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._heard = (self._heard + data).split(b"\n")
        if not data or len(self._heard) > LINE:
            return None
        return [_order(line) for line in lines]

    def tell(self, value: dict[str, Any]) -> bool:
        """False when it is to be cut off, as it does not read."""
        if not self._waiting:
            self._took = time.monotonic()
        if "out" not in value or len(self._waiting) <= BACKLOG:
            self._waiting += json.dumps(value).encode() + b"\n"
        self.flush()
        behind = len(self._waiting)
        stalled = behind > BACKLOG and time.monotonic() - self._took > STALLED
        return not stalled and behind <= 2 * BACKLOG + LINE

    def flush(self) -> None:
        try:
            sent = self._connection.send(self._waiting, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:  # it has gone, but what it had said before is still to be read
            sent = len(self._waiting)
        self._waiting = self._waiting[sent:]
        self._took = time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()


def _order(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
