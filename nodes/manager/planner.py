"""What shall stand: for each pair of nodes that asked, an active route and a standby. Pure.

Whoever runs it carries out the actions, in order, and tells the outcome. The rules:

- A pair has what `choosing.choose` says; one build at a time for a pair, the new before the old goes.
- A route is broken when an end, or a node at a link of it, says so; never by silence on the bus.
- A standing route is left only for one that is better (`weighing`) `STEADY` times in a row.
- What ends report and nobody here knows is adopted or taken away (`claims`).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Final

from nodes.manager import roster, weighing
from nodes.manager.choosing import Conditions, choose, stand_in
from nodes.manager.claims import Claims
from nodes.manager.ledger import Ledger, digest_of
from nodes.manager.pairs import (
    FIRST_RETRY,
    Action,
    Build,
    Building,
    Drop,
    Ends,
    NoWay,
    Pair,
    Path,
    Ready,
    Role,
    Route,
    Tell,
    TooManyRoutes,
    ends_of,
    gone,
    suspected,
)
from nodes.manager.roster import Roster
from nodes.manager.topology import Topology, link_of
from nodes.manager.wishes import Wishes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nodes.api import StandingRoute
    from nodes.manager.topology import Change

STEADY: Final = 3  # evaluations
EVALUATE_EVERY: Final = 3.0  # s for a pair, if there are few
EVALUATED: Final = 32  # pairs a tick: 10 to 15 ms in a mesh of 1,000 nodes
DRAIN: Final = 2.0  # s that a route stands which nobody sends on any more
LINGER: Final = 120.0  # s that a pair is kept whose ends are both gone


class Planner:
    """See the module. `new_route` returns names that were never used."""

    def __init__(
        self, topology: Topology, new_route: Callable[[], str], wishes: Wishes | None = None
    ) -> None:
        self._roster = Roster(wishes or Wishes())
        self.pairs = self._roster.pairs
        self._topology = topology
        self._new_route = new_route
        self._ledger = Ledger()
        self._claims = Claims()
        self._draining: deque[tuple[float, Route]] = deque()

    # What is asked for --------------------------------------------------------------------------

    @property
    def wishes(self) -> Wishes:
        return self._roster.wishes

    def wanted(self, asker: str, other: str, now: float) -> list[Action]:
        """A node wants a way to another: Ready or NoWay will follow. Raises TooManyRoutes."""
        pair = self._roster.enter(ends_of(asker, other), asker)
        if pair.active is None:
            pair.retry_at = 0.0
        return [*self._reconsider(pair, now), *weighing.verdict(pair, asked=False)]

    def wish(self, wishes: Wishes, ends: Ends, now: float) -> list[Action]:
        """People want something for this pair, and a way: as `wanted`, when it is as they want it."""
        self._roster.wishes = wishes
        pair, wish = self._roster.enter(ends, ends[0]), wishes.of(ends)
        wanted = roster.conditions(wish), roster.by_hand(wish)
        if wanted != (pair.conditions, pair.by_hand):
            pair.conditions, pair.by_hand = wanted
            pair.better, pair.retry_at, pair.evaluate_at = STEADY, 0.0, 0.0  # at once
        if pair.active is None:
            pair.retry_at = 0.0
        return [*self._reconsider(pair, now), *weighing.verdict(pair, asked=True)]

    def freed(self, wishes: Wishes, ends: Ends, now: float) -> list[Action]:
        """The same when nobody waits for a way, and nobody need have one."""
        if ends in self.pairs:
            return self.wish(wishes, ends, now)
        self._roster.wishes = wishes
        return []

    def unused(self, end: str, route: str, now: float) -> list[Action]:
        """An end has no more use for the other one."""
        pair = self._ledger.pair(route)
        if pair is None or end not in pair.ends or not pair.is_unused(end, now):
            return []
        return self._forget(pair, "its ends have no more use for it")

    # What became of it --------------------------------------------------------------------------

    def built(self, ends: Ends, name: str, path: Path, now: float) -> list[Action]:
        """A route stands."""
        pair = self.pairs.get(ends)
        if pair is None or pair.building is None or pair.building.name != name:
            return [Drop(name, path)]  # not wanted any more
        role = pair.building.role
        pair.building, pair.failures, pair.problem = None, 0, ""
        new = Route(name, path, now)
        self._ledger.enter(pair, new)
        actions: list[Action] = [Tell(name, path, up=True, reason="")]
        if pair.active is None:
            pair.active = new
            if role == "active":
                pair.preferred = name
            actions += [*pair.prefer(now), Ready(ends)]
        elif role == "standby":
            actions += self._retire(pair, pair.standby, now)
            pair.standby = new
        else:
            actions += self._replace(pair, pair.active, new, now)
            actions += [*pair.prefer(now), Ready(ends)]
        return actions + self._complete(pair, now)

    def failed(self, ends: Ends, name: str, problem: str, at: str, now: float) -> list[Action]:
        """A route could not be installed, by the fault of the node `at`."""
        pair = self.pairs.get(ends)
        if pair is None or pair.building is None or pair.building.name != name:
            return []
        standby = pair.building.role == "standby" and pair.active is not None
        pair.building, pair.problem = None, problem
        pair.postpone(now)
        if at not in ends:
            neighbours = self._topology.graph.get(at, {})
            pair.suspect((link_of(at, other) for other in neighbours), now)
        return [] if standby else [NoWay(ends, problem, found=True)]

    def switched(self, ends: Ends, name: str) -> None:
        """Both ends send on a route."""
        pair = self.pairs.get(ends)
        if pair is not None and pair.active is not None and pair.active.name == name:
            pair.preferred = name

    def lost(self, end: str, name: str, at: str, reason: str, now: float) -> list[Action]:
        """An end says that a route is gone; `at` is the node that ended it, if it is known."""
        pair = self._ledger.pair(name)
        if pair is None or end not in pair.ends:
            return []
        for route in pair.routes:
            if route.name == name:
                pair.suspect(suspected(route.path, end, at), now)
        return self._break(pair, name, reason, now)

    def changed(self, changes: Iterable[Change], now: float) -> list[Action]:
        """Nodes and links have come or gone."""
        actions: list[Action] = []
        came = False
        for change in changes:
            came |= change.up
            if change.b is not None and not change.up and not change.silent:
                for name in self._ledger.over(link_of(change.a, change.b)):
                    pair = self._ledger.pair(name)
                    if pair is not None:
                        actions += self._break(pair, name, "a link on the way was lost", now)
        waiting = [p for p in self.pairs.values() if p.failures and not p.routes] if came else []
        for pair in waiting:  # the way may be there now
            pair.retry_at = min(pair.retry_at, now + FIRST_RETRY)
        return actions

    def restarted(self, key: str) -> list[Action]:
        """A node was started anew and has none of its routes any more."""
        self._claims.forget(key)
        actions: list[Action] = []
        for name in self._ledger.ending(key):
            pair = self._ledger.pair(name)
            if pair is not None:
                actions += self._forget(pair, "a node was started again")
        return actions

    # What nodes report --------------------------------------------------------------------------

    def differs(self, key: str, count: int, digest: int) -> bool:
        """Whether other routes end at a node, as it says, than are known here."""
        if self._claims.pending(key):
            return False  # that is being found out
        draining = [old.name for _, old in self._draining if key in old.path[:: len(old.path) - 1]]
        return digest_of([*self._ledger.ending(key), *draining]) != (count, digest)

    def standing(self, key: str, routes: Sequence[StandingRoute], now: float) -> list[Action]:
        """All routes that end at a node, as it says."""
        actions: list[Action] = []
        reported = {said.route for said in routes}
        for name in self._ledger.ending(key):
            pair = self._ledger.pair(name)
            if pair is None or name in reported:
                continue
            if any(old.name == name and now - old.since > EVALUATE_EVERY for old in pair.routes):
                actions += self._break(pair, name, "an end does not have it any more", now)
        busy = {old.name for _, old in self._draining}
        busy |= {pair.building.name for pair in self.pairs.values() if pair.building}
        unknown = [s for s in routes if s.route not in self._ledger and s.route not in busy]
        for said in self._claims.hear(key, unknown, now):
            actions += self._adopt(said, now)
        return actions

    def _adopt(self, said: StandingRoute, now: float) -> list[Action]:
        path = tuple(said.path)
        ends = ends_of(path[0], path[-1])
        path = path if path[0] == ends[0] else path[::-1]
        try:
            pair = self._roster.enter(ends, ends[0])
        except TooManyRoutes:
            return [Drop(said.route, path)]
        route = Route(said.route, path, now)
        # Until then the others have registered, too, and the mesh is known.
        pair.evaluate_at, pair.retry_at = now + 2 * EVALUATE_EVERY, now + EVALUATE_EVERY
        if pair.active is None and (said.active or pair.standby is not None):
            pair.active = route
        elif pair.standby is None:
            pair.standby = route
        else:
            return [Drop(said.route, path)]
        self._ledger.enter(pair, route)
        return [Tell(route.name, path, up=True, reason="it stood before this manager came")]

    # Time ---------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        """A few times a second."""
        actions: list[Action] = []
        while self._draining and self._draining[0][0] <= now:
            _, route = self._draining.popleft()
            actions += gone(route, "a better one has taken its place")
        actions += [Drop(said.route, (key,)) for key, said in self._claims.expired(now)]
        for pair in self._roster.turns(EVALUATED):
            actions += self._look_at(pair, now)
        return actions

    def _look_at(self, pair: Pair, now: float) -> list[Action]:
        for link in [link for link, until in pair.suspects.items() if until <= now]:
            del pair.suspects[link]
        if any(key in self._topology.nodes for key in pair.ends):
            pair.alone_since = None
        elif pair.alone_since is None:
            pair.alone_since = now
        elif now - pair.alone_since > LINGER:
            return self._forget(pair, "both ends are gone")
        return [*pair.prefer_again(now), *self._evaluate(pair, now)]

    # Decisions ----------------------------------------------------------------------------------

    def conditions(self, pair: Pair) -> Conditions:
        """Those of a pair, with what it suspects now."""
        return dataclasses.replace(pair.conditions, suspects=frozenset(pair.suspects))

    def _evaluate(self, pair: Pair, now: float) -> list[Action]:
        """Build what is missing, or what has been better for long enough."""
        actions = self._complete(pair, now)
        if actions or pair.building or pair.active is None or now < pair.evaluate_at:
            return actions
        pair.evaluate_at = now + EVALUATE_EVERY
        return self._improve_active(pair, pair.active, now) or self._improve_standby(
            pair, pair.active
        )

    def _reconsider(self, pair: Pair, now: float) -> list[Action]:
        """Somebody may have a new wish: then the active route comes before the standby."""
        if pair.active is not None and (pair.by_hand or pair.better >= STEADY):
            return self._improve_active(pair, pair.active, now) or self._evaluate(pair, now)
        return self._evaluate(pair, now)

    def _complete(self, pair: Pair, now: float) -> list[Action]:
        """An active route first, then a standby; nothing while one is under way."""
        if pair.building or now < pair.retry_at:
            return []
        if pair.active is None and pair.standby is not None:
            return self._promote(pair, now)
        if pair.active is None:
            path = self._way(pair)
            if path is None:
                pair.problem = weighing.why_no_way(pair)
                pair.postpone(now)
                return [NoWay(pair.ends, pair.problem)]
            return self._build(pair, path, "active")
        if pair.standby is None:
            beside = stand_in(self._topology.graph, pair.active.path, self.conditions(pair))
            if beside is not None:
                return self._build(pair, tuple(beside), "standby")
        return []

    def _way(self, pair: Pair) -> Path | None:
        """The active way as it should be."""
        by_hand = weighing.by_hand(self._topology, pair)
        if by_hand is not None:
            return by_hand
        choice = choose(self._topology.graph, *pair.ends, self.conditions(pair))
        return tuple(choice.active) if choice is not None else None

    def _improve_active(self, pair: Pair, active: Route, now: float) -> list[Action]:
        """Hysteresis: only what is better for long enough replaces what stands."""
        if pair.building is not None or now < pair.retry_at:
            return []
        path: Path | None = weighing.by_hand(self._topology, pair)
        if path is not None:
            path, pair.better = (None if path == active.path else path), STEADY
        else:
            path = weighing.better_way(self._topology, pair, active, self.conditions(pair))
            pair.better = pair.better + 1 if path is not None else 0
        if path is None or pair.better < STEADY:
            return []
        pair.better = 0
        return self._build(pair, path, "better")

    def _improve_standby(self, pair: Pair, active: Route) -> list[Action]:
        path = weighing.better_standby(self._topology, pair, active, self.conditions(pair))
        pair.worse = pair.worse + 1 if path is not None else 0
        if path is None or pair.worse < STEADY:
            return []
        pair.worse = 0
        return self._build(pair, path, "standby")

    def _replace(self, pair: Pair, old: Route, new: Route, now: float) -> list[Action]:
        """A better route takes over; one of the old two may stand by."""
        pair.active = new
        beside = stand_in(self._topology.graph, new.path, self.conditions(pair))
        keep, actions = None, list[Action]()
        for route in (old, pair.standby):
            if route is not None and beside is not None and route.path == tuple(beside):
                keep = route
            else:
                actions += self._retire(pair, route, now)
        pair.standby = keep
        return actions

    def _break(self, pair: Pair, name: str, reason: str, now: float) -> list[Action]:
        """A route carries nothing any more: the standby takes over, and another one is built."""
        actions: list[Action] = []
        for route in pair.routes:
            if route.name == name:
                self._ledger.strike(pair, route)
                actions += gone(route, reason)
        if pair.active is not None and pair.active.name == name:
            pair.active = None
            if pair.standby is not None:
                return actions + self._promote(pair, now)
        elif pair.standby is not None and pair.standby.name == name:
            pair.standby = None
        return actions + self._complete(pair, now)

    def _promote(self, pair: Pair, now: float) -> list[Action]:
        """The standby is the active route; both ends have changed to it already, or will now."""
        pair.active, pair.standby = pair.standby, None
        pair.better, pair.evaluate_at = 0, now + EVALUATE_EVERY
        return [*pair.prefer(now), Ready(pair.ends), *self._complete(pair, now)]

    def _build(self, pair: Pair, path: Path, role: Role) -> list[Action]:
        name = self._new_route()
        pair.building = Building(name, role)
        return [Build(pair.ends, name, path, active=role == "active")]

    def _retire(self, pair: Pair, route: Route | None, now: float) -> list[Action]:
        """What is on the way on a route may still arrive before it goes."""
        if route is not None:
            self._ledger.strike(pair, route)
            self._draining.append((now + DRAIN, route))
        return []

    def _forget(self, pair: Pair, reason: str) -> list[Action]:
        self._roster.strike(pair)
        actions: list[Action] = []
        for route in pair.routes:
            self._ledger.strike(pair, route)
            actions += gone(route, reason)
        return [*actions, NoWay(pair.ends, reason, found=True)]
