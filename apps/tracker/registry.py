"""What is offered just now: the newest announcement of each place, until it expires or is taken back.

Announcements come here verified (`nodes.offers.verified`); `now` is Unix time, as in them.
"""

import bisect
import itertools
from dataclasses import dataclass

from nodes.offers import Announcement, Place, Statement

MAX_OFFERS = 8_192
MAX_OF_STRANGERS = 1_024  # of those who are not on the bus
MAX_OF_NODE = 64
PAGE = 100  # offers in one answer

STRANGER = ""  # who has not proved a key


class NotTaken(Exception):
    """An announcement that changes nothing; `name` is the error's name on the bus."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass(slots=True)
class _Entry:
    announcement: Announcement
    statement: Statement
    by: str  # key of the program that announced it, or STRANGER
    remembered: float  # Unix s; until then, what was said before could be played again
    withdrawn: bool = False

    def shown(self, now: float) -> bool:
        return not self.withdrawn and self.statement.expires > now


class Registry:
    """All offers, bounded."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int], _Entry] = {}
        # The same in order, all (None) and of each type: who asks for what nobody has costs nothing.
        self._places: dict[str | None, list[tuple[str, int]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, announcement: Announcement, statement: Statement, by: str, now: float) -> None:
        """Take an announcement in place of an older one; raises NotTaken."""
        place = announcement.key, announcement.port
        old = self._entries.get(place)
        if old is None:
            self._check_room(announcement.key, by, now)
        elif statement.issued <= old.statement.issued:
            raise NotTaken("stale", f"port {place[1]} of that node has announced something newer")
        remembered = max(statement.expires, old.remembered if old else 0.0)
        self._entries[place] = _Entry(announcement, statement, by, remembered)
        if old is None:
            self._enter(None, place)
        elif old.statement.type != statement.type:
            self._strike(old.statement.type, place)
        if old is None or old.statement.type != statement.type:
            self._enter(statement.type, place)

    def withdraw(self, place: Place, by: str) -> None:
        """Its announcer takes an offer back; anybody else cannot."""
        entry = self._entries.get((place.key, place.port))
        if entry is not None and by != STRANGER and entry.by == by:
            entry.withdrawn = True

    def gone(self, by: str) -> None:
        """A program has left the bus, and what it announced with it; or a node, and what is there."""
        for place, entry in self._entries.items():
            if by != STRANGER and by in (entry.by, place[0]):
                entry.withdrawn = True

    def find(
        self, kind: str | None, after: Place | None, now: float
    ) -> tuple[list[tuple[Announcement, Statement]], bool]:
        """A page of what is offered, in the order of the places, and whether there is more."""
        places = self._places.get(kind, [])
        start = bisect.bisect_right(places, (after.key, after.port)) if after else 0
        found: list[tuple[Announcement, Statement]] = []
        for place in itertools.islice(places, start, None):
            entry = self._entries[place]
            if entry.shown(now):
                if len(found) == PAGE:
                    return found, True
                found.append((entry.announcement, entry.statement))
        return found, False

    def expire(self, now: float) -> None:
        """Forget what nobody could play again."""
        for place, entry in list(self._entries.items()):
            if entry.remembered <= now:
                del self._entries[place]
                self._strike(None, place)
                self._strike(entry.statement.type, place)

    def _enter(self, kind: str | None, place: tuple[str, int]) -> None:
        bisect.insort(self._places.setdefault(kind, []), place)

    def _strike(self, kind: str | None, place: tuple[str, int]) -> None:
        places = self._places[kind]
        del places[bisect.bisect_left(places, place)]
        if not places:
            del self._places[kind]

    def _check_room(self, key: str, by: str, now: float) -> None:
        if len(self._entries) >= MAX_OFFERS:
            self.expire(now)
        if len(self._entries) >= MAX_OFFERS:
            raise NotTaken("full", f"this tracker holds {MAX_OFFERS} offers and takes no more")
        of_node = sum(place[0] == key for place in self._entries)
        if of_node >= MAX_OF_NODE:
            raise NotTaken("full", f"a node may have {MAX_OF_NODE} offers")
        if by == STRANGER:
            strangers = sum(entry.by == STRANGER for entry in self._entries.values())
            if strangers >= MAX_OF_STRANGERS:
                raise NotTaken("full", "no more offers of programs that are not on the bus")
