"""Whose logs are meant by the words of `viscript logs`, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viscript import meaning, selectors
from viscript.errors import NotFound
from viscript.words import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from viscript.home import Home

OURS = ("broker", "daemon")


@dataclass(frozen=True)
class Place:
    """One log. What a launch of it would be asked by a selector."""

    path: Path
    app: str
    id: int | None = None
    instance: int = 0
    groups: tuple[str, ...] = ()
    state: str = ""
    key: str = ""
    host: str = ""
    live: bool = False

    @property
    def name(self) -> str:
        name = self.app if self.id is None else f"{self.app}.{self.id}"
        return f"{self.host}:{name}" if self.host else name


def find(home: Home, words: Sequence[str]) -> list[Place]:
    """Those that are meant, or all that live: of each app what runs, else what ran last.

    `NotFound` when there is none; `BadUsage` when it is no selector.
    """
    known = _known(home)
    ours = [Place(home.logs / f"{x}.log", x) for x in OURS if (home.logs / f"{x}.log").exists()]
    if not words:
        found = [place for place in known if place.live]
        if not found:
            raise NotFound("nothing runs; say whose log: viscript logs APP; see: viscript la --all")
        return found
    meant = [place for place in ours if place.app in words]
    rest = [word for word in words if word not in OURS or not any(x.app == word for x in ours)]
    if not rest:
        return meant
    selector = meaning.selected_here(home, rest)
    exact = {word for word in rest if word.isdecimal()}
    chosen = selectors.select(selector, known)
    if not chosen and not meant:
        words_known = {*(place.app for place in known), *(place.app for place in ours)}
        hint = did_you_mean(rest[0], words_known) or "; see: viscript la --all"
        raise NotFound(f"there is no log of {' '.join(rest)!r} in {home.logs}{hint}")
    return meant + _newest(chosen, exact)


def _known(home: Home) -> list[Place]:
    """All launches that have a log, oldest first."""
    from viscript.state import peek

    records = {record.id: record for record in peek(home.database)}
    found: dict[int, Place] = {}
    for path in home.logs.glob("*-*.log"):
        number, _, app = path.stem.partition("-")
        if not number.isdecimal() or (len(number) > 1 and number[0] == "0"):
            continue
        record = records.get(int(number))
        if record is None:
            found[int(number)] = Place(path, app, int(number))
        else:
            found[record.id] = Place(
                path, record.app, record.id, record.instance, tuple(record.groups), record.state,
                record.key, live=record.live,
            )  # fmt: skip
    return [found[number] for number in sorted(found)]


def _newest(chosen: Sequence[Place], exact: set[str]) -> list[Place]:
    """What was meant by its id, and of every app and instance what lives, else what ran last."""
    last: dict[tuple[str, int], Place] = {}
    for place in chosen:
        last[place.app, place.instance] = place
    busy = {(place.app, place.instance) for place in chosen if place.live}
    return [
        place
        for place in chosen
        if place.live
        or str(place.id) in exact
        or (last[place.app, place.instance] is place and (place.app, place.instance) not in busy)
    ]
