"""Which route belongs to which pair, passes which link, ends at which node. Pure bookkeeping."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from nodes.manager.pairs import Pair, Route
    from nodes.manager.topology import Link


def digest_of(names: Collection[str]) -> tuple[int, int]:
    """How many routes these are, and all their names as numbers, by exclusive or."""
    digest = 0
    for name in names:
        digest ^= int(name, 16)
    return len(names), digest


class Ledger:
    def __init__(self) -> None:
        self._pairs: dict[str, Pair] = {}
        self._over: defaultdict[Link, set[str]] = defaultdict(set)
        self._ending: defaultdict[str, set[str]] = defaultdict(set)

    def enter(self, pair: Pair, route: Route) -> None:
        self._pairs[route.name] = pair
        for link in route.links:
            self._over[link].add(route.name)
        for end in pair.ends:
            self._ending[end].add(route.name)

    def strike(self, pair: Pair, route: Route) -> None:
        del self._pairs[route.name]
        for link in route.links:
            self._over[link].discard(route.name)
            if not self._over[link]:
                del self._over[link]
        for end in pair.ends:
            self._ending[end].discard(route.name)
            if not self._ending[end]:
                del self._ending[end]

    def __contains__(self, name: str) -> bool:
        return name in self._pairs

    def pair(self, name: str) -> Pair | None:
        return self._pairs.get(name)

    def over(self, link: Link) -> list[str]:
        """Routes that pass a link, by name."""
        return sorted(self._over.get(link, ()))

    def ending(self, key: str) -> list[str]:
        """Routes that end at a node, by name."""
        return sorted(self._ending.get(key, ()))
