"""Lists that the broker tells page by page, so that each answer fits into a body."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import TypeVar

from bus import signals

FRAME = 1024  # bytes of an answer beside the items: its keys, and the place of the next page

T = TypeVar("T")
Q = TypeVar("Q", bound=signals.PageQuery)


def asked(body: bytes, kind: type[Q]) -> Q:
    """The page that is asked for: the first one of all when the body is empty; `Refused`."""
    return signals.unpack(body, kind) if body and body != signals.pack(None) else kind()


def page(
    items: Iterable[tuple[str, T]], query: signals.PageQuery, room: int
) -> tuple[list[T], str]:
    """What comes after `query.after`, as much as `room` bytes take, and where the next page begins.

    Each item comes with its place; places are unique, and their order is that of the list. One item there
    is at least, so that who asks for page after page comes to the end.
    """
    found: list[T] = []
    last = ""
    room -= FRAME
    for place, item in sorted((x for x in items if x[0] > query.after), key=itemgetter(0)):
        room -= len(signals.pack(item))
        if found and (room < 0 or len(found) == query.limit):
            return found, last
        found.append(item)
        last = place
    return found, ""
