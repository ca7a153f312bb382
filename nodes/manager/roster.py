"""Which pairs of nodes the manager looks after, and whose turn it is. Pure bookkeeping, bounded."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from nodes.manager.choosing import Conditions
from nodes.manager.pairs import Pair, TooManyRoutes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nodes.api import Wish
    from nodes.manager.pairs import Ends
    from nodes.manager.wishes import Wishes

MAX_PAIRS: Final = 20_000
MAX_PAIRS_OF_ONE: Final = 2_048  # that one node asked for


class Roster:
    """`wishes` is what people want; a pair begins with it."""

    def __init__(self, wishes: Wishes) -> None:
        self.pairs: dict[Ends, Pair] = {}
        self.wishes = wishes
        self._asked: Counter[str] = Counter()  # pairs, by who asked
        self._turn: deque[Pair] = deque()  # whose evaluation comes next

    def enter(self, ends: Ends, asker: str) -> Pair:
        """The pair, new if there is none; raises TooManyRoutes."""
        pair = self.pairs.get(ends)
        if pair is None:
            if len(self.pairs) >= MAX_PAIRS or self._asked[asker] >= MAX_PAIRS_OF_ONE:
                raise TooManyRoutes
            wish = self.wishes.of(ends)
            pair = self.pairs[ends] = Pair(ends, asker, conditions(wish), by_hand(wish))
            self._asked[asker] += 1
            self._turn.append(pair)
        return pair

    def strike(self, pair: Pair) -> None:
        del self.pairs[pair.ends]
        self._asked[pair.asked_by] -= 1
        if not self._asked[pair.asked_by]:
            del self._asked[pair.asked_by]

    def turns(self, count: int) -> Iterator[Pair]:
        """The next so many pairs, in turn."""
        for _ in range(min(count, len(self._turn))):
            pair = self._turn.popleft()
            if self.pairs.get(pair.ends) is pair:
                self._turn.append(pair)
                yield pair


def conditions(wish: Wish) -> Conditions:
    """The policy of a wish; its ends are neither to be passed nor to be avoided."""
    ends, policy = {wish.a, wish.b}, wish.policy
    return Conditions(policy, frozenset(policy.must) - ends, frozenset(policy.avoid) - ends)


def by_hand(wish: Wish) -> tuple[str, ...] | None:
    return tuple(wish.by_hand) if wish.by_hand is not None else None
