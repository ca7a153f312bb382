"""`viscript find`: what apps offer in the mesh, as the tracker lists it and their nodes have signed it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from viscript.errors import BadUsage, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nodes.offers import Announcement, Search

MAX_PAGES = 1000  # of a tracker that never comes to its end


class Offer(Struct, frozen=True):
    """What is at `port` of the node `key`."""

    type: str
    key: str
    port: int
    labels: dict[str, str]
    expires: float  # Unix s


def run(kind: str | None, labels: list[str]) -> None:
    from viscript import options
    from viscript.output import document, table

    wanted = dict(map(_label, labels))
    found = [o for o in _read(_ask(kind), kind) if wanted.items() <= o.labels.items()]
    if options.as_json():
        document(found)
    elif found:
        rows = [(o.type, o.key, str(o.port), _shown(o.labels), _left(o.expires)) for o in found]
        table(("TYPE", "NODE", "PORT", "LABELS", "GOOD FOR"), rows)
    if not found:
        raise NotFound(
            f"nothing of the type {kind!r} is offered" if kind else "no app offers anything"
        )


def _ask(kind: str | None) -> Iterator[Announcement]:
    """All pages of the tracker."""
    from nodes.offers import FIND, Found, Place, Search
    from viscript.commands.bus.connection import Asking
    from viscript.commands.bus.where import here

    search = _search(kind)
    with Asking(here()) as bus:
        for _ in range(MAX_PAGES):
            try:
                page = bus.ask(FIND, search, Found)
            except NotFound:
                way = "no tracker answers; start one: viscript start apptracker"
                raise NotFound(way) from None
            yield from page.offers
            if not page.more or not page.offers:
                return
            last = page.offers[-1]
            search = Search(kind, Place(last.key, last.port))


def _search(kind: str | None) -> Search:
    import msgspec

    from nodes.offers import Search

    try:
        return msgspec.convert({"type": kind}, Search)
    except msgspec.ValidationError:
        raise BadUsage(f"{kind!r} is no type: letters, digits, dots and dashes, up to 32") from None


def _read(found: Iterable[Announcement], kind: str | None) -> Iterator[Offer]:
    """What their nodes have signed, and is not over; the tracker itself is not trusted."""
    from nodes.offers import BadOffer, verified
    from viscript.output import warn

    for each in found:
        try:
            said = verified(each, time.time())
        except BadOffer as problem:
            warn(f"left out what the tracker says of {each.key}, port {each.port}: {problem}")
            continue
        if kind in {None, said.type}:
            yield Offer(said.type, each.key, each.port, said.labels, said.expires)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadUsage(f"--label {text}: want NAME=VALUE")
    return name, value


def _shown(labels: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _left(expires: float) -> str:
    return f"{max(0.0, expires - time.time()):.0f} s"
