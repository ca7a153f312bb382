"""The enrolment file: read again whenever somebody has changed it, changed under a lock.

The broker and `bus-broker token` share it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from bus import enrolment, keystore
from bus.access import AccessError
from bus.enrolment import Door
from bus.errors import KeyFileError

NAME = "enrolment.json"  # beside the access list


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(enrolment.TOKEN_BYTES)


class Doorkeeper:
    """Keeps the `Door` in `path`; a missing file is a closed door."""

    def __init__(self, path: Path, *, patience: float) -> None:
        self._path = path
        self._patience = patience  # seconds
        self._seen: keystore.Stamp | None = None  # of the file that `_door` came from
        self._door = Door()

    @classmethod
    def beside(cls, access_file: Path, *, patience: float) -> Doorkeeper:
        """The one of the broker that has this access list."""
        return cls(access_file.with_name(NAME), patience=patience)

    def read(self) -> Door:
        """The door as it is on disk now; `AccessError` names the file and what is wrong."""
        try:
            seen = keystore.stamp(self._path)
        except OSError as error:
            raise AccessError(f"{self._path}: cannot be read: {error.strerror}") from None
        if seen is None:
            self._seen, self._door = None, Door()
        elif seen != self._seen:
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
        with keystore.locked(self._path.parent, self._patience):
            keystore.write_private(self._path, enrolment.encode(act(self.read())))
