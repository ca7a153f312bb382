"""Connections by their descriptors, which are libzmq's: whose they are, cutting them, who never spoke.

A descriptor is reused at once; the inode of its socket tells its owners apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections import Counter, deque
from itertools import islice

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


class Owners:
    """Whose an accepted descriptor is now. A message may come from a connection that has lost its own.

    Connections have numbers, given in the handshake and rising. A connection whose number was given before
    its descriptor was accepted last is not the one that was accepted then.
    """

    def __init__(self) -> None:
        self._accepted: dict[int, int] = {}  # by descriptor: the last number given before
        self._inodes: dict[int, int] = {}  # of those that have spoken

    def accepted(self, fd: int, last: int) -> None:
        """`last` is the number that was given last."""
        self._accepted[fd] = last
        self._inodes.pop(fd, None)

    def lost(self, fd: int) -> int | None:
        """The inode of the descriptor's connection, which is gone; None when it never spoke."""
        self._accepted.pop(fd, None)
        return self._inodes.pop(fd, None)

    def owns(self, fd: int, number: int) -> bool:
        return fd in self._accepted and number > self._accepted[fd]

    def spoke(self, fd: int, number: int) -> int:
        """The inode of this connection, which has spoken; 0 when it has lost its descriptor."""
        if not self.owns(fd, number):
            return 0
        inode = self._inodes[fd] = inode_of(fd)
        return inode


class Cuts:
    """Connections that are to be cut: soon, or because they said nothing for `stay` seconds.

    Times are monotonic seconds.
    """

    def __init__(self, stay: float) -> None:
        self._stay = stay
        self._due: deque[tuple[float, Connection]] = deque()
        self._silent: dict[int, tuple[float, int]] = {}  # until when, inode; the oldest first

    def soon(self, connection: Connection, when: float) -> None:
        """Cut it then; the calls come in the order of `when`."""
        self._due.append((when, connection))

    def accepted(self, fd: int, now: float) -> None:
        """It has to say something from now on."""
        self.over(fd)
        self._silent[fd] = now + self._stay, inode_of(fd)

    def over(self, fd: int) -> None:
        """It has spoken, or is gone."""
        self._silent.pop(fd, None)

    @property
    def next(self) -> list[float]:
        """When there is something to cut; empty when nothing is."""
        times = [self._due[0][0]] if self._due else []
        return times + [until for until, _ in islice(self._silent.values(), 1)]

    def carry_out(self, now: float) -> Counter[str]:
        """Cut who is due; counted is who never said a word."""
        while self._due and self._due[0][0] <= now:
            cut(self._due.popleft()[1])
        refused: Counter[str] = Counter()
        while self._silent:
            fd, (until, inode) = next(iter(self._silent.items()))
            if until > now:
                break
            del self._silent[fd]
            cut(Connection(b"", "", fd, inode))
            refused["mute"] += 1
        return refused
