"""The socket at which a program tells how it is, as systemd's sd_notify(3) does."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Any

LONGEST = 4096  # bytes of one message
STATUS = 200  # characters that are kept
EXTENSION = 3600.0  # seconds at most that one message may ask for
AT_ONCE = 64  # messages read in one go: who floods us does not keep us from the rest
DIGITS = 18  # of a number; more is rubbish
_UCRED = struct.Struct("3i")


class Notify:
    """Bound to `path`; one that begins with @ is no file: who may not enter our folders finds it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._remove()  # the lock of the folder is ours
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        if self._is_file:
            self._socket.bind(path)
            os.chmod(path, 0o600)  # noqa: PTH101
        else:
            self._socket.bind("\0" + path[1:])

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def _is_file(self) -> bool:
        return not self.path.startswith("@")

    def read(self, uid: int, now: float) -> dict[str, Any]:
        """What the messages of `uid` that have come change in the state."""
        news: dict[str, Any] = {}
        for _ in range(AT_ONCE):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    LONGEST, socket.CMSG_SPACE(_UCRED.size)
                )
            except OSError:
                return news
            sender = [_UCRED.unpack(part)[1] for _, kind, part in ancillary
                      if kind == socket.SCM_CREDENTIALS and len(part) == _UCRED.size]  # fmt: skip
            if sender and sender[0] in (uid, 0):
                news |= parse(data, now)
        return news

    def close(self) -> None:
        self._socket.close()
        self._remove()

    def _remove(self) -> None:
        if self._is_file:
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108


def parse(data: bytes, now: float) -> dict[str, Any]:
    """What one message changes; unknown words and rubbish change nothing. `extended`: for so many seconds."""
    news: dict[str, Any] = {}
    for line in data.decode(errors="replace").splitlines():
        name, _, value = line.partition("=")
        match name:
            case "READY" if value == "1":
                news["ready"] = True
            case "RELOADING" if value == "1":
                news["ready"] = False
            case "STATUS":
                news["status"] = "".join(x for x in value if x.isprintable())[:STATUS]
            case "WATCHDOG" if value == "1":
                news["watchdog"] = now
            case "EXTEND_TIMEOUT_USEC" if value.isdecimal() and len(value) <= DIGITS:
                news["extended"] = min(int(value) / 1e6, EXTENSION)
            case _:
                pass
    return news
