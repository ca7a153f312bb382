"""The enrolment file: read again whenever somebody has changed it, changed under a lock.

The broker and `bus-broker token` share it. The lock is on the folder and held for one small write; nobody
waits for it longer than `patience`, so that a stopped program cannot hold up a broker.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bus import enrolment, keystore
from bus.access import AccessError
from bus.enrolment import Door
from bus.errors import KeyFileError

NAME = "enrolment.json"  # beside the access list
_PAUSE = 0.005  # seconds between tries to get the lock


class Doorkeeper:
    """Keeps the `Door` in `path`; a missing file is a closed door."""

    def __init__(self, path: Path, *, patience: float) -> None:
        self._path = path
        self._patience = patience  # seconds
        self._seen: tuple[int, int, int] | None = None  # the file that `_door` came from
        self._door = Door()

    def read(self) -> Door:
        """The door as it is on disk now; `AccessError` names the file and what is wrong."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._door = None, Door()
            return self._door
        except OSError as error:
            raise AccessError(f"{self._path}: cannot be read: {error.strerror}") from None
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            try:
                self._door = enrolment.decode(keystore.read_private(self._path))
            except (AccessError, KeyFileError) as error:
                text = str(error)
                named = text if str(self._path) in text else f"{self._path}: {text}"
                raise AccessError(named) from None
            self._seen = seen
        return self._door

    def change(self, act: Callable[[Door], Door]) -> None:
        """Replace the door by what `act` makes of it. What `act` raises leaves it as it is; `OSError`."""
        with locked(self._path.parent, self._patience):
            keystore.write_private(self._path, enrolment.encode(act(self.read())))


@contextmanager
def locked(folder: Path, patience: float) -> Iterator[None]:
    """Alone with a broker's folder; `OSError` when somebody else has been for `patience` seconds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    problem = "another program is changing it; try again"
                    raise BlockingIOError(11, problem, str(folder)) from None
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)
