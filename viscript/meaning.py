"""What the words of a command select where the other names of apps are known, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from viscript import catalog, selectors
from viscript.errors import ViscriptError

if TYPE_CHECKING:
    from viscript.home import Home
    from viscript.launcher import Launcher
    from viscript.selectors import Selector


def selected(launcher: Launcher, words: str | Sequence[str]) -> Selector:
    """With the names of the daemon's configuration; `BadUsage`. What runs by a name has it."""
    live = {record.app for record in launcher.records.values()}
    names = catalog.aliases(launcher.config)
    return selectors.parse(words, {x: app for x, app in names.items() if x not in live})


def selected_here(home: Home, words: str | Sequence[str]) -> Selector:
    """With the names of this host's configuration, daemon or not; `BadUsage`."""
    return selectors.parse(words, _names(home))


def _names(home: Home) -> Mapping[str, str]:
    """None where the file cannot be read: then only names are understood."""
    from viscript import config
    from viscript.client import last_config

    try:
        return catalog.aliases(config.load(config.find(last_config(home), {}, home.config)))
    except ViscriptError:
        return {}
