"""A small file of the system, such as resolv.conf: read again when it has changed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

RESOLV_CONF: Final = Path("/etc/resolv.conf")
LOOK_EVERY: Final = 1.0  # seconds between two looks at a file
MAX_FILE: Final = 4 << 20  # bytes of it that are read

T = TypeVar("T")


class Watched(Generic[T]):
    """What `read` makes of the file's text; a file that cannot be read is empty."""

    def __init__(self, path: Path, read: Callable[[str], T]) -> None:
        self._path = path
        self._read = read
        self._value = read("")
        self._stamp: tuple[int, int, int] | None = None
        self._looked = 0.0

    def value(self) -> T:
        now = time.monotonic()
        if not self._looked or now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            about = self._path.stat()
            stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
            if stamp == self._stamp:
                return
            with self._path.open("rb") as file:
                text = file.read(MAX_FILE).decode(errors="replace")
        except OSError:
            stamp, text = (0, 0, 0), ""
            if stamp == self._stamp:
                return
        self._stamp, self._value = stamp, self._read(text)
