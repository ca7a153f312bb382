"""Routes that an end reports and this manager does not know: it is new, or the end is wrong. Pure.

A route that both ends report alike stood before this manager came, and is adopted. What only one end
has is of no use, and is taken away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nodes.api import StandingRoute

CLAIM_FOR: Final = 15.0  # s for the other end to report the same route
MAX_OF_ONE: Final = 4_096


class Claims:
    def __init__(self) -> None:
        self._claims: dict[str, dict[str, tuple[StandingRoute, float]]] = {}  # by end, by route

    def pending(self, key: str) -> bool:
        return bool(self._claims.get(key))

    def forget(self, key: str) -> None:
        self._claims.pop(key, None)

    def hear(
        self, key: str, unknown: Sequence[StandingRoute], now: float
    ) -> Iterator[StandingRoute]:
        """What a node claims; those that the other end claimed as well are yielded."""
        claims = self._claims.setdefault(key, {})
        for said in unknown[:MAX_OF_ONE]:
            path = said.path
            if key not in (path[0], path[-1]) or len(set(path)) != len(path):
                continue  # its own affair
            other = path[-1] if path[0] == key else path[0]
            match = self._claims.get(other, {}).get(said.route)
            if match is not None and match[0].path == path:
                del self._claims[other][said.route]
                yield said
            elif len(claims) < MAX_OF_ONE:
                claims.setdefault(said.route, (said, now))
        self._tidy(key)

    def expired(self, now: float) -> Iterator[tuple[str, StandingRoute]]:
        """Claims that nobody confirmed, and whose they were."""
        for key, claims in list(self._claims.items()):
            for name, (said, since) in list(claims.items()):
                if now - since > CLAIM_FOR:
                    del claims[name]
                    yield key, said
            self._tidy(key)

    def _tidy(self, key: str) -> None:
        if not self._claims.get(key, True):
            del self._claims[key]
