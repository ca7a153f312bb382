"""What people want for the ways between two nodes: a policy, or a route by hand. Pure.

Other than what nodes report nobody can tell it a manager again, so it is kept (`nodes.manager.keeping`).
A pair without a wish has the default policy.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Final

from nodes.api import Path, Policy, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nodes.manager.pairs import Ends

MAX_WISHES: Final = 4_096
PAGE: Final = 64  # of one answer: each has up to 72 nodes besides a path


class TooManyWishes(Exception):
    """As many wishes are kept as may be."""


class Wishes:
    """By the ends of a pair, in their order. Changing it gives another one: that is kept first."""

    def __init__(self, wishes: Iterable[Wish] = ()) -> None:
        self._wishes = {(wish.a, wish.b): wish for wish in wishes}
        self._order = sorted(self._wishes)

    def __iter__(self) -> Iterator[Wish]:
        return iter([self._wishes[ends] for ends in self._order])

    def __len__(self) -> int:
        return len(self._order)

    def of(self, ends: Ends) -> Wish:
        return self._wishes.get(ends) or Wish(*ends)

    def after(self, ends: Ends) -> tuple[list[Wish], bool]:
        """Those that come after these ends, and whether there are more."""
        at = bisect.bisect_right(self._order, ends)
        page = self._order[at : at + PAGE]
        return [self._wishes[found] for found in page], at + PAGE < len(self._order)

    def with_policy(self, ends: Ends, policy: Policy) -> Wishes:
        """A policy takes the place of what was wanted before; raises TooManyWishes."""
        return self._with(Wish(*ends, policy))

    def by_hand(self, ends: Ends, path: Path) -> Wishes:
        """A route by hand, from the first end on; the policy holds again when it is given up."""
        return self._with(Wish(*ends, self.of(ends).policy, path))

    def freed(self, ends: Ends) -> Wishes:
        """No route by hand any more."""
        return self._with(Wish(*ends, self.of(ends).policy))

    def _with(self, wish: Wish) -> Wishes:
        ends = wish.a, wish.b
        others = [found for found in self._wishes.values() if (found.a, found.b) != ends]
        if wish == Wish(*ends):
            return Wishes(others)
        if len(others) >= MAX_WISHES:
            raise TooManyWishes
        return Wishes([*others, wish])
