"""What keys have used of their volumes, on disk: a limit does not end when the exit is started again."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Final

from apps.egress.ledger import Ledger

FILE: Final = "socks-volumes.json"
EVERY: Final = 1.0  # seconds between two looks whether something changed


class Volumes:
    """One file in the program's own folder. `shift` makes Unix time of the ledger's clock."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._path = folder / FILE
        self._ledger = ledger
        self._written: dict[str, list[int]] = {}

    def load(self, now: float, shift: float) -> None:
        """Take over what was used before; a file that cannot be read counts for nothing."""
        try:
            found = json.loads(self._path.read_text())
            pairs = {str(key): (int(used), float(began)) for key, (used, began) in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return
        for key, (used, began) in pairs.items():
            self._ledger.restore(key, used, began - shift, now)

    def save(self, shift: float) -> str | None:
        """Write what changed; says why it could not."""
        used = {
            key: [account.used, round(account.began + shift)]
            for key, account in self._ledger.accounts.items()
            if account.limits.volume and account.used
        }
        if used == self._written:
            return None
        temporary = ""
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent)
            with os.fdopen(descriptor, "w") as file:
                json.dump(used, file)
            Path(temporary).replace(self._path)
        except OSError as error:
            if temporary:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
            return f"{self._path}: {error.strerror}; volumes are forgotten at the next start"
        self._written = dict(used)
        return None
