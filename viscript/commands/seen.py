"""Which launches a command shows that was given ids, names or selectors; no command of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from viscript import meaning, selectors
from viscript.commands.order import called
from viscript.errors import NotFound
from viscript.roles import Role

if TYPE_CHECKING:
    from viscript.launcher import Launcher
    from viscript.records import Record
    from viscript.roles import Caller


def seen(launcher: Launcher, words: Sequence[str], caller: Caller) -> list[Record]:
    """What lives and is meant; all without words. An id may also be of one that has ended.

    `NotFound` when a name, or the whole, matches nothing that the caller may see.
    """
    visible = [x for x in launcher.records.values() if caller.may(Role.VIEW, x)]
    if not words:
        return sorted(visible, key=lambda record: record.id)
    selector = meaning.selected(launcher, words)
    names = selectors.named(selector)
    records = [record for name in names for record in called(launcher, name, caller)]
    if not names:
        records = selectors.select(selector, visible)
    if not records:
        raise NotFound(f"nothing that runs matches {selector}; see: viscript la")
    found = {record.id: record for record in records}
    return [found[number] for number in sorted(found)]
