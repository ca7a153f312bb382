"""Names for keys, chosen by the user of a home: `addresses.json`, an object of names and keys.

They come before the names that nodes give themselves: what a name means here nobody else decides.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from viscript.errors import BadConfig, BadUsage, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 10_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Addresses:
    """The names in the file `path`, by name; `BadConfig` when it cannot be understood."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys = _read(path)

    def key(self, name: str) -> str | None:
        return self.keys.get(name)

    def name(self, key: str) -> str | None:
        """The first name of a key, by the alphabet."""
        return min((name for name, known in self.keys.items() if known == key), default=None)

    def set(self, name: str, key: str, *, replace: bool = False) -> None:
        """`Conflict` when the name stands for another key already."""
        if not NAME.fullmatch(name) or len(name) == 40:
            raise BadUsage(
                f"not a name: {name[:80]!r}; it has up to 64 letters, digits, '.', '-' and '_', not 40"
            )
        if self.keys.get(name, key) != key and not replace:
            text = f"{name} is the name of {self.keys[name]} already; change it: --force"
            raise Conflict(f"{self.path}: {text}")
        if len(self.keys) >= MOST and name not in self.keys:
            raise Conflict(f"{self.path}: holds {MOST} names, which is all it may")
        self._write({**self.keys, name: key})

    def remove(self, name: str) -> None:
        """`NotFound` when there is no such name."""
        if name not in self.keys:
            raise NotFound(f"{self.path}: no name {name!r}; see: viscript node name ls")
        self._write({known: key for known, key in self.keys.items() if known != name})

    def _write(self, keys: Mapping[str, str]) -> None:
        import msgspec

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(
                    msgspec.json.format(msgspec.json.encode(dict(sorted(keys.items())))) + b"\n"
                )
            Path(temporary).replace(self.path)
        except OSError:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
        self.keys = dict(keys)


def _read(path: Path) -> dict[str, str]:
    import msgspec

    from bus.identity import is_key

    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: cannot be read: {error}; mend or remove it") from None
    for name, key in found.items():
        if not is_key(key) or not NAME.fullmatch(name):
            raise BadConfig(f"{path}: {name[:64]!r}: not a name with a key; mend or remove it")
    return found
