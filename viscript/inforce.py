"""The configuration that was in force last, kept in the home.

When the daemon was killed and the file is broken meanwhile, what runs must not stay without anybody who looks
after it: the next daemon goes on with what the last one had, as if it had never been away.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from viscript import config, plainfile
from viscript.errors import BadConfig
from viscript.processes import Fate, look

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from viscript.config import Config
    from viscript.home import Home

log = logging.getLogger(__name__)

MOST = 8 << 20  # bytes: a configuration as JSON


class Kept(msgspec.Struct, frozen=True):
    file: str
    text: bytes


def keep(home: Home, file: Path) -> None:
    """Remember what is in `file`. A full disk is no reason not to go on."""
    try:
        kept = Kept(str(file), config.read(file))
        new = home.in_force.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(kept))
        new.replace(home.in_force)
    except (OSError, BadConfig) as problem:
        log.warning("%s: the configuration in force is not kept: %s", home.in_force, problem)


def load(home: Home, file: Path, warn: Callable[[str], None]) -> Config:
    """What is in `file`; else, while something lives here, what was in it last: `warn` hears of that.

    `BadConfig` when nothing lives, or nothing of this file was kept.
    """
    try:
        return config.load(file)
    except BadConfig as problem:
        kept = _kept(home, file) if _lives(home) else None
        if kept is None:
            raise
        warn(
            f"{problem}; what runs here is taken over with the configuration that was in force last; mend "
            "the file, then: viscript config plan"
        )
        return kept


def _kept(home: Home, file: Path) -> Config | None:
    try:
        kept = msgspec.json.decode(plainfile.read(home.in_force, MOST), type=Kept)
        if kept.file != str(file):
            return None
        return msgspec.structs.replace(config.parse(kept.text, file), is_kept=True)
    except (OSError, msgspec.MsgspecError, BadConfig):
        return None


def _lives(home: Home) -> bool:
    folders = home.launches.iterdir() if home.launches.is_dir() else ()
    return any(look(folder)[0] is not Fate.ENDED for folder in folders)
