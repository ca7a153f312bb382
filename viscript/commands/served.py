"""The commands that the daemon answers over the bus; the others only read what is on disk or start it."""

from __future__ import annotations

from types import ModuleType

from viscript.commands import down, find, list, ru, sd, start, status, wait  # noqa: A004

COMMANDS: tuple[ModuleType, ...] = (start, find, list, ru, sd, status, wait, down)
