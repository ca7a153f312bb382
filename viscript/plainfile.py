"""Reading files that others wrote: bounded, and never waiting for anybody."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

OURS = (
    "/dev/stdin",
    "/dev/fd/",
    "/proc/self/fd/",
)  # what a shell gives: may be a pipe, and is waited for


def read(file: Path, most: int) -> bytes:
    """Up to `most` bytes. `OSError`, also for what is no plain file: a FIFO could hold us up for ever."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        return stream.read(most)


def read_given(file: Path, most: int) -> bytes:
    """As `read`, also of what a shell put at our disposal: /dev/stdin, or `<(command)`."""
    if not str(file).startswith(OURS):
        return read(file, most)
    with file.open("rb") as stream:
        return stream.read(most)
