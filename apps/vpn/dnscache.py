"""Answers of the exit's resolver, for as long as they say: bounded. `now` is in seconds of any clock."""

from typing import Final

import dns.message

from apps.vpn.questions import Question, lifetime

MAX_ENTRIES: Final = 4096


class Cache:
    """The least recently used go first when it is full."""

    def __init__(self, size: int = MAX_ENTRIES) -> None:
        self._size = size
        self._entries: dict[Question, tuple[dns.message.Message, float, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Question, now: float) -> tuple[dns.message.Message, float] | None:
        """An answer that is still good, and its age in seconds."""
        entry = self._entries.pop(question, None)
        if entry is None or entry[2] <= now:
            return None
        self._entries[question] = entry  # to the end: used last
        return entry[0], now - entry[1]

    def put(self, question: Question, found: dns.message.Message, now: float) -> None:
        self._entries.pop(question, None)
        life = lifetime(found)
        if life <= 0:
            return
        while len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[question] = (found, now, now + life)
