"""Connections by their descriptors, which are libzmq's: whose they are, cutting them, who never spoke.

A descriptor is reused at once; the inode of its socket tells its owners apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket

from bus.routing.peers import Connection


def inode_of(fd: int) -> int:
    """The inode of the descriptor's socket; 0 when it is closed."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return 0


# An address of no family, to which a connected socket is connected to be disconnected.
_NOBODY = bytes(16)
_connect = ctypes.CDLL(None).connect


def cut(connection: Connection, *, reset: bool = False) -> None:
    """Shut the connection down, if its descriptor is still its own. Never close it: it is libzmq's.

    What was sent before still arrives; with `reset` only what has left this machine, which may be megabytes
    less. Where that cannot be done, the connection is shut down all the same.
    """
    if connection.inode == 0 or inode_of(connection.fd) != connection.inode:
        return
    with contextlib.suppress(OSError):
        duplicate = socket.socket(fileno=os.dup(connection.fd))
        try:
            if reset:  # Linux: forgets what it has not sent, and says so to the peer
                _connect(duplicate.fileno(), _NOBODY, len(_NOBODY))
            duplicate.shutdown(socket.SHUT_RDWR)
        finally:
            duplicate.close()


class Mute:
    """Connections that were accepted and have not said a word yet; they may be so for `stay` seconds."""

    def __init__(self, stay: float) -> None:
        self._stay = stay
        self._silent: dict[int, tuple[float, int]] = {}  # until when, inode; the oldest first

    def accepted(self, fd: int, now: float) -> None:
        self.over(fd)
        self._silent[fd] = now + self._stay, inode_of(fd)

    def over(self, fd: int) -> None:
        """It has spoken, or is gone."""
        self._silent.pop(fd, None)

    def next(self) -> float | None:
        """When the next has been silent for too long."""
        return next((until for until, _ in self._silent.values()), None)

    def take(self, now: float) -> list[Connection]:
        """Who has been silent for too long, which is thereby forgotten."""
        taken = []
        while (until := self.next()) is not None and until <= now:
            fd = next(iter(self._silent))
            taken.append(Connection(b"", "", fd, self._silent.pop(fd)[1]))
        return taken
