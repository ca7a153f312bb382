"""What the broker tells of the services that it knows."""

from __future__ import annotations

from collections.abc import Iterable

from bus import signals
from bus.routing.handles import Desk, Offer

DESCRIBED = 256  # bytes of a service's description beside its texts, at most


def listed(desks: Iterable[Desk], room: int) -> signals.Services:
    """Who offers what, with what became of the requests; as many as `room` bytes can tell."""
    found: list[signals.ServiceInfo] = []
    for desk in desks:
        for offer in desk.offers.values():
            info = _describe(offer)
            room -= _size(info)
            if room < 0:
                return signals.Services(found)
            found.append(info)
    return signals.Services(found)


def _describe(offer: Offer) -> signals.ServiceInfo:
    session = offer.desk.session
    return signals.ServiceInfo(
        subject=offer.pattern, name=offer.name, ver=offer.ver, desc=offer.desc, key=session.key,
        session=session.number, limit=offer.limit, inflight=offer.inflight, requests=offer.requests,
        errors=offer.errors, seconds=offer.seconds,
    )  # fmt: skip


def _size(info: signals.ServiceInfo) -> int:
    texts = (info.subject, info.name, info.ver, info.desc)
    return DESCRIBED + sum(len(text.encode()) for text in texts)
