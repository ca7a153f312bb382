"""Commands and names as the prompt offers them: the same that bash, zsh and fish do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from viscript import completing
from viscript.completion import offers, stored
from viscript.home import Home
from viscript.shell import lines
from viscript.surface import registry


class Known:
    """Tree and snapshot, read again when they have changed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._file, self._stamp = home.snapshot, 0
        self._names: Mapping[str, Any] = {}
        self.tree: Mapping[str, Any] = {}
        self.look_again()

    def look_again(self) -> None:
        """At the commands; those of another version are written anew meanwhile."""
        tree, current = stored.tree(os.environ)
        if not current:
            completing.refresh()
        self.tree = lines.with_ends(tree or registry.tree())

    @property
    def names(self) -> Mapping[str, Any]:
        try:
            stamp = self._file.stat().st_mtime_ns
        except OSError:
            stamp = -1
        if stamp != self._stamp:
            self._stamp = stamp
            self._names = stored.snapshot(str(self._home.root), os.environ)
        return self._names


class Offering(Completer):
    """For the word before the cursor."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._files = PathCompleter(expanduser=True)
        self._folders = PathCompleter(expanduser=True, only_directories=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        typed = completing.split(document.text_before_cursor)
        words = typed[1:] if typed[:1] == ["viscript"] and len(typed) > 1 else typed
        current = words[-1]
        if not document.text_before_cursor.endswith(current):  # quoted: what to insert is not clear
            return
        for word, text in offers.offers(words, self._known.tree, self._known.names):
            if word in {offers.FILES, offers.FOLDERS}:
                paths = self._files if word == offers.FILES else self._folders
                yield from paths.get_completions(Document(current), complete_event)
                return
            yield Completion(word, -len(current), display_meta=text)
