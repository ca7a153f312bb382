"""Which node manager a node obeys: remembered in a file from the first one it registered at."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from bus.identity import is_key

if TYPE_CHECKING:
    from pathlib import Path


class PinError(Exception):
    """The file that remembers the manager cannot be used; says which and the way out."""


def pinned(path: Path) -> str | None:
    """The manager's key, None when there is none yet; raises PinError."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise PinError(f"cannot read the node manager's key from {path}: {error}") from None
    if not is_key(text):
        raise PinError(
            f"{path} holds no key: write the node manager's key into it, or remove it "
            "to trust the first manager that answers"
        )
    return text


def pin(path: Path, manager: str) -> None:
    """Remember, for good and at once; raises PinError."""
    written = path.with_name(path.name + ".new")
    try:
        with written.open("w", encoding="ascii") as file:
            file.write(manager + "\n")
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            written.unlink()
        raise PinError(f"cannot remember the node manager's key in {path}: {error}") from None
