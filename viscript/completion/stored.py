"""The tree of commands and the snapshot of names on disk, for whoever asks without wanting to wait.

Imports next to nothing.
"""

from __future__ import annotations

import json
import os

from viscript import directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_FILE = 8 << 20  # bytes
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def stamp() -> str:
    """Changes whenever what commands there are may have changed."""
    newest = 0
    for folder in ("surface", "commands", "commands/bus", "commands/node", "."):
        with os.scandir(f"{_PACKAGE}/{folder}") as entries:
            times = [e.stat().st_mtime_ns for e in entries if e.name.endswith(".py")]
            newest = max(newest, len(times), *times)
    return f"{_PACKAGE} {newest}"


def tree_file(environment: Mapping[str, str]) -> str:
    return f"{directories.Directories(environment).cache}/commands.json"


def tree(environment: Mapping[str, str]) -> tuple[Mapping[str, Any] | None, bool]:
    """The commands, None if nobody has written them down, and whether they are those of this version."""
    found = _read(tree_file(environment))
    known = found.get("tree")
    return (known if isinstance(known, dict) else None), found.get("stamp") == stamp()


def snapshot(home: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The names in a home, and those of the user's contexts."""
    found = _read(f"{home}/state/completion.json")
    folder = f"{directories.Directories(environment).config}"
    try:
        names = sorted(name for name in os.listdir(f"{folder}/contexts") if name.endswith(".json"))
    except OSError:
        names = []
    contexts = [name.removesuffix(".json") for name in names]
    return {**found, "contexts": contexts, "nodes": _nodes(home)}


def _nodes(home: str) -> list[str]:
    """The user's own names for keys, and what nodes were called when somebody looked last."""
    own = _read(f"{home}/addresses.json")
    called = _read(f"{home}/state/nodes.json").values()
    return sorted({*own, *(name for name in called if isinstance(name, str))})


def _read(path: str) -> dict[str, Any]:
    """A JSON object of a file that only its owner writes; empty when there is none."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(MAX_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
