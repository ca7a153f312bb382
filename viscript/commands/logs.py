"""`viscript logs`: what programs printed. Reads the files, so it works when nothing runs."""

from __future__ import annotations

import heapq
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from viscript.errors import BadUsage
from viscript.logfiles import Line, Reader
from viscript.output import document, line, moment
from viscript.words import clean

if TYPE_CHECKING:
    from contextlib import ExitStack

    from viscript.home import Home
    from viscript.logplaces import Place

PAUSE = 0.1  # seconds between two looks at the files
PATIENCE = 0.5  # seconds after which a line without its end is shown
COLOURS = (36, 33, 32, 35, 34, 31)  # of the names before the lines


class Readable(Protocol):
    """One log, here or on another host."""

    def lines(self) -> Iterator[Line]: ...
    def rest(self) -> Iterator[Line]: ...


@dataclass(frozen=True)
class How:
    """What of it is shown, and in which way."""

    lines: int | None = None  # the last of all together; None: no such bound
    since: float | None = None  # Unix seconds
    grep: re.Pattern[str] | None = None
    follow: bool = False
    raw: bool = False  # control sequences stay in
    times: bool = False
    as_json: bool = False


def moment_of(text: str, now: float) -> float:
    """`10s`, `5m`, `2h`, `7d` ago, or a local time: `14:30`, `2026-01-31`, `2026-01-31 14:30`; `BadUsage`."""
    from datetime import datetime

    if found := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", text):
        return now - float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
    today = datetime.fromtimestamp(now).date().isoformat()  # noqa: DTZ006 - as people read clocks
    for each in (text, f"{today} {text}"):
        try:
            return datetime.fromisoformat(each).timestamp()
        except (ValueError, OverflowError):
            continue
    raise BadUsage(f"--since {text!r} is no time; write 10s, 5m, 2h, 7d, 14:30 or 2026-01-31T14:30")


def pattern_of(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadUsage(f"--grep {text!r} is no regular expression: {error}") from None


def run(home: Home, words: Sequence[str], host: str, how: How) -> None:
    """What there is, then, if it is followed, what comes; also of other hosts."""
    from contextlib import ExitStack

    # Looking for lines, or in several logs, one has to see more than will be shown.
    last = how.lines if how.grep is None and not how.since else None
    with ExitStack() as stack:
        places, readers = _all(home, words, host, how.since, last, stack)
        _show(places, readers, how)


def _all(
    home: Home, words: Sequence[str], host: str, since: float | None, last: int | None, stack: ExitStack,
) -> tuple[list[Place], list[Readable]]:  # fmt: skip
    """Whose logs are meant, and who reads them."""
    from viscript import logplaces
    from viscript.commands import elsewhere

    here, there = elsewhere.split(home, words, host)
    places = [] if there and not here else logplaces.find(home, here)
    readers: list[Readable] = [Reader(x.path, last=last, since=since) for x in places]
    if not there:
        return places, readers
    from viscript.client import Client

    client = stack.enter_context(Client(home))
    for name, what in there.items():
        session = elsewhere.Session(client.at_named(name), stack)
        for place in session.find(what):
            places.append(place)
            readers.append(elsewhere.Reader(session, place, last=last, since=since))
    return places, readers


def _show(places: Sequence[Place], readers: Sequence[Readable], how: How) -> None:
    found = list(_first(places, readers, how))
    if how.as_json and not how.follow:
        document(_document(places, found))
        return
    show = _Printer(places, how)
    for place, each in found:
        show(place, each)
    sys.stdout.flush()
    quiet = 0.0
    while how.follow:
        time.sleep(PAUSE)
        quiet += PAUSE
        for place, each in _coming(places, readers, how, quiet):
            quiet = 0.0
            show(place, each)
        sys.stdout.flush()


Found = tuple["Place", Line]


def _first(places: Sequence[Place], readers: Sequence[Readable], how: How) -> Iterator[Found]:
    """The last lines of all together, by their times; each log stays in its own order."""

    def each(number: int) -> Iterator[tuple[float, int, Found]]:
        reader, latest = readers[number], 0.0
        lines = _wanted(_with_rest(reader, how), how)
        for one in lines if how.lines is None else deque(lines, how.lines):
            latest = max(latest, one.time or 0.0)  # a clock that was put back does not mix them up
            yield latest, number, (places[number], one)

    merged = (found for *_, found in heapq.merge(*map(each, range(len(places)))))
    return merged if how.lines is None else iter(deque(merged, how.lines))


def _with_rest(reader: Readable, how: How) -> Iterator[Line]:
    yield from reader.lines()
    if not how.follow:
        yield from reader.rest()


def _wanted(lines: Iterator[Line], how: How) -> Iterator[Line]:
    if how.grep is None:
        return lines
    search = how.grep.search
    return (x for x in lines if search(x.text.decode(errors="replace")))


def _coming(
    places: Sequence[Place], readers: Sequence[Readable], how: How, quiet: float
) -> Iterator[Found]:
    for place, reader in zip(places, readers, strict=True):
        for each in _wanted(reader.lines(), how):
            yield place, each
    if quiet >= PATIENCE and len(places) == 1 and not how.as_json:  # such as a question
        for each in _wanted(readers[0].rest(), how):
            yield places[0], each


def _document(places: Sequence[Place], found: list[Found]) -> object:
    def one(place: Place) -> dict[str, Any]:
        lines = [each for at, each in found if at is place]
        return {
            "file": str(place.path), "app": place.app, "id": place.id, "host": place.host,
            "lines": [x.text.decode(errors="replace") for x in lines],
            "times": [x.time for x in lines],
        }  # fmt: skip

    return one(places[0]) if len(places) == 1 else [one(place) for place in places]


class _Printer:
    """Shows lines of one or of several logs."""

    def __init__(self, places: Sequence[Place], how: How) -> None:
        self._how = how
        self._terminal = sys.stdout.isatty()
        dumb = os.environ.get("TERM", "dumb") == "dumb" or "NO_COLOR" in os.environ
        self._names: dict[int, bytes] = {}
        if len(places) > 1:
            width = max(len(x.name) for x in places)
            for number, place in enumerate(places):
                name = clean(place.name).ljust(width)
                if self._terminal and not dumb:
                    name = f"\x1b[{COLOURS[number % len(COLOURS)]}m{name}\x1b[0m"
                self._names[id(place)] = f"{name} | ".encode(errors="replace")

    def __call__(self, place: Place, each: Line) -> None:
        if self._how.as_json:
            shown = each.text.decode(errors="replace")
            line(
                {
                    "app": place.app,
                    "id": place.id,
                    "host": place.host,
                    "time": each.time,
                    "text": shown,
                },
                flush=False,
            )
            return
        text = each.text
        if self._terminal and not self._how.raw:
            text = clean(text.decode(errors="replace")).encode(errors="replace")
        when = b""
        if self._how.times:
            when = (moment(each.time) if each.time is not None else "-").encode() + b" "
        end = b"\n" if each.whole or self._names else b""
        sys.stdout.buffer.write(self._names.get(id(place), b"") + when + text + end)
