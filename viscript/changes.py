"""Which files of a folder change, as the kernel tells (inotify); where it does not, any may have."""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_Q_OVERFLOW = 0x2, 0x80, 0x100, 0x4000
HEAD = struct.Struct("iIII")  # struct inotify_event before the name
GATHER = 0.05  # seconds in which changes become one


class Changes:
    """`fd` can be read when something has changed; it is None where the kernel does not tell."""

    def __init__(self, folder: Path) -> None:
        self.fd = _watch(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd is not None:
            os.close(self.fd)

    def gathered(self) -> set[str] | None:
        """Names of what was written, came or was renamed; None: anything may have been."""
        if self.fd is None:
            return None
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return set()
        time.sleep(GATHER)  # who prints a lot wakes us seldom
        while True:
            try:
                data += os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return _names(data)


def _names(data: bytes) -> set[str] | None:
    found, place = set(), 0
    while place < len(data):
        _, mask, _, length = HEAD.unpack_from(data, place)
        if mask & IN_Q_OVERFLOW:
            return None
        place += HEAD.size + length
        found.add(os.fsdecode(data[place - length : place].rstrip(b"\0")))
    return found


def _watch(folder: Path) -> int | None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except AttributeError:
        return None
    if fd < 0:  # the user has as many as allowed
        return None
    if libc.inotify_add_watch(fd, os.fsencode(folder), IN_MODIFY | IN_MOVED_TO | IN_CREATE) < 0:
        os.close(fd)
        return None
    return fd
