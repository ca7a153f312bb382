"""What `ps` shows of a process that is not what it was started as: its arguments, and its name."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PR_SET_NAME = 15
ARG_START, ARG_END = 45, 46  # of what follows the name in /proc/PID/stat


def become(name: str, *words: str) -> None:
    """Show `words` as our arguments, as far as there is room; nothing happens where that cannot be."""
    import ctypes

    with suppress(OSError, ValueError, IndexError, AttributeError):
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[ARG_START]), int(fields[ARG_END])
        room = end - start
        before = Path("/proc/self/cmdline").read_bytes()
        if (
            room <= 0 or ctypes.string_at(start, room) != before[:room]
        ):  # else it is not what we take it for
            return
        text = b"\0".join(map(os.fsencode, words))[: room - 1]
        ctypes.memmove(start, text.ljust(room, b"\0"), room)
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)
