"""Who has which number at an exit, and how much of its volume is used; what survives a restart of it.

Pure: `now` is Unix time, in seconds. A number stays with its key while the key is remembered, whether
there is a lease or not; when the book is full, the key that was here longest ago is forgotten.
"""

from typing import Annotated, Final

import msgspec

from apps.vpn.addresses import FIRST, Plan
from bus.identity import is_key

MAX_REMEMBERED: Final = 4096  # keys
DAY: Final = 86_400  # seconds: volume is counted by days (UTC)
Number = Annotated[int, msgspec.Meta(ge=FIRST, le=2**24)]


class NoRoom(Exception):
    """All numbers have a lease."""


class Entry(msgspec.Struct):
    """A key that is remembered."""

    number: Number
    seen: float  # when a lease began or ended, or bytes were counted
    day: int = 0  # since 1970, of `volume`
    volume: Annotated[int, msgspec.Meta(ge=0)] = 0  # bytes


class BadBook(Exception):
    """What was kept cannot be used; the text says why."""


class Book:
    """The numbers of one exit."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._entries: dict[str, Entry] = {}
        self._keys: dict[int, str] = {}  # the other way round
        self._leased: set[str] = set()

    @property
    def leased(self) -> int:
        return len(self._leased)

    def take(self, key: str, now: float) -> int:
        """Begin a lease and give its number; raises NoRoom."""
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= min(MAX_REMEMBERED, self._plan.room):
                self._forget_one()
            number = self._free(self._plan.wish(key))
            entry = self._entries[key] = Entry(number, now)
            self._keys[number] = key
        entry.seen = now
        self._leased.add(key)
        return entry.number

    def give_back(self, key: str, now: float) -> None:
        """End a lease."""
        self._leased.discard(key)
        if key in self._entries:
            self._entries[key].seen = now

    def count(self, key: str, amount: int, now: float) -> None:
        """So many bytes were moved for a key that is remembered."""
        entry = self._entries.get(key)
        if entry is not None:
            if entry.day != int(now // DAY):
                entry.day, entry.volume = int(now // DAY), 0
            entry.volume += amount

    def volume(self, key: str, now: float) -> int:
        """Bytes that a key has used today."""
        entry = self._entries.get(key)
        return entry.volume if entry is not None and entry.day == int(now // DAY) else 0

    def dump(self) -> bytes:
        """What is to be kept on disk."""
        return msgspec.json.encode(_Kept(str(self._plan.v4), self._entries)) + b"\n"

    def load(self, kept: bytes) -> None:
        """Take up what was kept; nothing, if it was for other networks. Raises BadBook."""
        try:
            found = msgspec.json.decode(kept, type=_Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadBook(str(error)) from None
        if found.network != str(self._plan.v4):
            return
        for key, entry in found.entries.items():
            fits = FIRST <= entry.number < FIRST + self._plan.room
            if is_key(key) and fits and entry.number not in self._keys:
                self._entries[key] = entry
                self._keys[entry.number] = key

    def _forget_one(self) -> None:
        """Make room for one more."""
        idle = [key for key in self._entries if key not in self._leased]
        if not idle:
            raise NoRoom
        oldest = min(idle, key=lambda key: self._entries[key].seen)
        del self._keys[self._entries.pop(oldest).number]

    def _free(self, wish: int) -> int:
        number = wish
        while number in self._keys:
            number = FIRST + (number - FIRST + 1) % self._plan.room
        return number


class _Kept(msgspec.Struct):
    network: str
    entries: dict[str, Entry]
