"""What the broker tells of the services that it knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bus import signals
from bus.routing.handles import Desk, Offer


def placed(desks: Iterable[Desk]) -> Iterator[tuple[str, signals.ServiceInfo]]:
    """Who offers what, with what became of the requests; each with its place in the list."""
    for desk in desks:
        for offer in desk.offers.values():
            yield f"{desk.session.number:019d} {offer.pattern}", _describe(offer)


def _describe(offer: Offer) -> signals.ServiceInfo:
    session = offer.desk.session
    return signals.ServiceInfo(
        subject=offer.pattern, name=offer.name, ver=offer.ver, desc=offer.desc, key=session.key,
        session=session.number, limit=offer.limit, inflight=offer.inflight, requests=offer.requests,
        errors=offer.errors, seconds=offer.seconds,
    )  # fmt: skip
