"""Replies to requests that may be repeated: whoever asks the same again gets the same reply."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from bus.routing.handles import Identity

KEPT = 120.0  # seconds
MAX_REPLIES = 4096
MAX_BYTES = 16 << 20  # of bodies
MAX_KEY_REPLIES = 1024
MAX_KEY_BYTES = 1 << 20


@dataclass(slots=True)
class Kept:
    """A reply as it came; not changed after."""

    sender: str
    err: str
    msg: str
    num: int
    body: bytes


@dataclass(slots=True)
class _Share:
    """What is kept for one key."""

    identities: OrderedDict[Identity, None]
    size: int = 0


class Replies:
    """The oldest gives way when there are too many. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Identity, tuple[Kept, float]] = OrderedDict()  # and when it expires
        self._shares: dict[str, _Share] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def next_deadline(self) -> float | None:
        """When the oldest expires."""
        return next(iter(self._kept.values()))[1] if self._kept else None

    def find(self, identity: Identity, now: float) -> Kept | None:
        kept = self._kept.get(identity)
        return kept[0] if kept is not None and kept[1] > now else None

    def keep(self, identity: Identity, reply: Kept, now: float) -> None:
        """Remember a reply; not one that is larger than all that may be kept for its key."""
        size = len(reply.body)
        if size > MAX_KEY_BYTES:
            return
        self._drop(identity)
        share = self._shares.get(identity[0])
        while (
            share is not None
            and share.identities
            and (len(share.identities) >= MAX_KEY_REPLIES or share.size + size > MAX_KEY_BYTES)
        ):
            self._drop(next(iter(share.identities)))
        while self._kept and (len(self._kept) >= MAX_REPLIES or self._size + size > MAX_BYTES):
            self._drop(next(iter(self._kept)))
        share = self._shares.setdefault(identity[0], _Share(OrderedDict()))
        share.identities[identity] = None
        share.size += size
        self._size += size
        self._kept[identity] = reply, now + KEPT

    def expire(self, now: float) -> None:
        while self._kept:
            identity, (_, until) = next(iter(self._kept.items()))
            if until > now:
                return
            self._drop(identity)

    def forget(self, key: str) -> None:
        """The key is not allowed any more: neither for it nor from it is anything kept."""
        for identity in [i for i, (kept, _) in self._kept.items() if key in (i[0], kept.sender)]:
            self._drop(identity)

    def _drop(self, identity: Identity) -> None:
        kept = self._kept.pop(identity, None)
        if kept is None:
            return
        share = self._shares[identity[0]]
        del share.identities[identity]
        share.size -= len(kept[0].body)
        self._size -= len(kept[0].body)
        if not share.identities:
            del self._shares[identity[0]]
