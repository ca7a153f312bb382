"""Whoever is killed leaves no processes: a guard beside it ends the groups that it had started."""

from __future__ import annotations

import os
import signal
import struct
from contextlib import suppress
from typing import NoReturn

_WORD = struct.Struct("=i")  # a group that was started, or less than 0: that has ended


class Guard:
    """A process of its own that waits for our end, however it comes, and then kills the groups it knows.

    To be made before any thread. A group is safe from the `holds` that follows its start on. (The kernel's
    own PR_SET_PDEATHSIG ends a child, but not what the child has started.)
    """

    def __init__(self) -> None:
        read, self._write = os.pipe2(os.O_CLOEXEC)
        if os.fork() == 0:
            _watch(read, self._write)
        os.close(read)

    def holds(self, group: int) -> None:
        """A process group was started."""
        self._tell(group)

    def lets_go(self, group: int) -> None:
        """It has ended; its number may become another's."""
        self._tell(-group)

    def _tell(self, word: int) -> None:
        with suppress(BrokenPipeError):  # somebody killed the guard
            os.write(self._write, _WORD.pack(word))


def _watch(read: int, write: int) -> NoReturn:
    """Hear of groups until nobody is left to tell, then kill those that have not ended."""
    try:
        os.setsid()  # Ctrl-C is not for us
        null = os.open(os.devnull, os.O_RDWR)
        for held in (0, 1, 2):  # who reads what is printed waits for the command, not for us
            os.dup2(null, held)
        os.close(write)
        for group in _left(read):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
    finally:
        os._exit(0)  # nothing of the command's own end is ours to do


def _left(read: int) -> set[int]:
    """The groups that have not ended when the pipe does."""
    groups: set[int] = set()
    with open(read, "rb") as words:
        while len(word := words.read(_WORD.size)) == _WORD.size:
            (number,) = _WORD.unpack(word)
            if number > 0:
                groups.add(number)
            else:
                groups.discard(-number)
    return groups
