"""What people ask the manager and want of it; nodes may not, which is the broker's affair."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import msgspec

from bus import Refused
from bus.identity import is_key
from nodes import api
from nodes.manager import describing
from nodes.manager.bodies import find, name_of
from nodes.manager.keeping import WishFileError
from nodes.manager.pairs import ends_of
from nodes.manager.wishes import TooManyWishes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from bus import Request
    from nodes.manager.pairs import Action, Ends
    from nodes.manager.planner import Planner
    from nodes.manager.topology import Topology
    from nodes.manager.wishes import Wishes

    Handler = Callable[[Request], Awaitable[bytes]]
    Begin = Callable[[], list[Action]]


class People:
    """`outcome` begins something for a pair and waits for what comes of it; `save` keeps wishes."""

    def __init__(
        self,
        topology: Topology,
        planner: Planner,
        outcome: Callable[[Ends, str, Begin], Awaitable[bytes]],
        carry_out: Callable[[Iterable[Action]], None],
        save: Callable[[Wishes], None],
    ) -> None:
        self._topology = topology
        self._planner = planner
        self._outcome = outcome
        self._carry_out = carry_out
        self._save = save

    @property
    def handlers(self) -> list[tuple[str, Handler]]:
        return [
            (api.POLICY, self._policy),
            (api.LAY, self._lay),
            (api.FREE, self._free),
            (api.NODES, self._nodes),
            (api.WISHES, self._wishes),
            (api.WHY, self._why),
        ]

    async def _policy(self, request: Request) -> bytes:
        wanted = api.unpack(request.body, api.Wanted)
        begin, goal = self._key(wanted.a), self._key(wanted.b)
        ends = self._ends_of(begin, goal)
        policy = msgspec.structs.replace(
            wanted.policy,
            must=[self._key(target) for target in wanted.policy.must],
            avoid=[self._key(target) for target in wanted.policy.avoid],
        )
        return await self._want(ends, goal, lambda wishes: wishes.with_policy(ends, policy))

    async def _lay(self, request: Request) -> bytes:
        given = api.unpack(request.body, api.Lay).path
        path = [find(self._topology, target).key for target in given]
        if len(set(path)) != len(path):
            raise Refused(400, "loop", "a route passes a node once")
        for here, other in itertools.pairwise(path):
            if other not in self._topology.graph[here]:
                names = " - ".join(name_of(self._topology, key) for key in (here, other))
                raise Refused(409, "no_link", f"there is no link {names}")
        ends = ends_of(path[0], path[-1])
        ordered = path if path[0] == ends[0] else path[::-1]
        return await self._want(ends, path[-1], lambda wishes: wishes.by_hand(ends, ordered))

    async def _free(self, request: Request) -> bytes:
        ends = self._pair(request)
        wishes = self._kept(lambda wishes: wishes.freed(ends))
        self._carry_out(self._planner.freed(wishes, ends, time.monotonic()))
        return api.pack(api.Empty())

    async def _nodes(self, request: Request) -> bytes:
        look = api.unpack(request.body, api.Look)
        return api.pack(describing.nodes(self._topology, self._planner, look))

    async def _wishes(self, request: Request) -> bytes:
        after = api.unpack(request.body, api.After)
        return api.pack(api.Wishes(*self._planner.wishes.after((after.a, after.b))))

    async def _why(self, request: Request) -> bytes:
        ends = self._pair(request)
        return api.pack(describing.why(self._topology, self._planner, ends))

    async def _want(self, ends: Ends, goal: str, change: Callable[[Wishes], Wishes]) -> bytes:
        """Keep a wish, and have a way laid as it says."""
        wishes = self._kept(change)
        now = time.monotonic()
        return await self._outcome(ends, goal, lambda: self._planner.wish(wishes, ends, now))

    def _kept(self, change: Callable[[Wishes], Wishes]) -> Wishes:
        """The wishes as they are to be, on disk; raises Refused."""
        try:
            wishes = change(self._planner.wishes)
            self._save(wishes)
        except TooManyWishes:
            text = "this manager keeps all the policies it may; free one: viscript node route ls"
            raise Refused(503, "too_many_policies", text) from None
        except WishFileError as error:
            raise Refused(503, "not_kept", str(error)) from None
        return wishes

    def _pair(self, request: Request) -> Ends:
        pair = api.unpack(request.body, api.Pair)
        return self._ends_of(self._key(pair.a), self._key(pair.b))

    def _key(self, target: str) -> str:
        """A key is taken as it is: its node may be away."""
        return target if is_key(target) else find(self._topology, target).key

    @staticmethod
    def _ends_of(a: str, b: str) -> Ends:
        if a == b:
            raise Refused(400, "itself", "these are the same node")
        return ends_of(a, b)
