"""Small files, written without what Python's own file objects would keep in memory."""

from __future__ import annotations

import errno
import os


def write(path: str, data: bytes, *, lasting: bool = False) -> None:
    """All of it, or `OSError`. `lasting`: also through a power cut."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if lasting:
            os.fsync(fd)
    finally:
        os.close(fd)
