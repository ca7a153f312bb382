"""What was typed at the prompt, in a file of the home that only its owner reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History

KEPT = 5000  # lines
MAX_LINE = 4096  # characters


class Lines(History):
    """One line each. A line that begins with a space is not kept; without a home nothing is."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def load_history_strings(self) -> Iterable[str]:
        """The newest first, as prompt_toolkit wants it."""
        try:
            text = self._file.read_text(errors="replace")
        except OSError:
            return []
        found = [line for line in text.splitlines() if line.isprintable()]
        if len(found) > 2 * KEPT:
            self._shorten(found[-KEPT:])
        return found[: -KEPT - 1 : -1]

    def append_string(self, string: str) -> None:
        if not string.startswith(" ") and string.strip():
            super().append_string(string.strip())

    def store_string(self, string: str) -> None:
        """The prompt works on where the file cannot be written."""
        if not self._file.parent.is_dir() or len(string) > MAX_LINE or not string.isprintable():
            return
        with suppress(OSError):
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "a") as file:
                os.fchmod(fd, 0o600)
                file.write(f"{string}\n")

    def _shorten(self, lines: list[str]) -> None:
        temporary = self._file.with_name(f"{self._file.name}.new")
        with suppress(OSError):
            temporary.touch(mode=0o600)
            temporary.write_text("".join(f"{line}\n" for line in lines))
            temporary.replace(self._file)
