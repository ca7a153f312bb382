"""Pairs of nodes that asked for a way to each other, what they have, and what is to be done for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from nodes.manager.choosing import Conditions, links
from nodes.manager.topology import Link, link_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SUSPECT_FOR: Final = 30.0  # s
FIRST_RETRY, LAST_RETRY = 0.5, 30.0  # s
UNUSED_FOR: Final = 10.0  # s: within which both ends must say so; each says it every 3 s
FIRST_TELLING: Final = 8.0  # s: longer than both ends may take to answer

Ends = tuple[str, str]  # the smaller key first
Path = tuple[str, ...]
Role = Literal["active", "better", "standby"]


def ends_of(a: str, b: str) -> Ends:
    return (a, b) if a < b else (b, a)


class TooManyRoutes(Exception):
    """The manager, or the node that asks, has all the routes it may."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A route that both ends and all between have taken."""

    name: str
    path: Path
    since: float
    links: frozenset[Link] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "links", links(self.path))


@dataclass(frozen=True, slots=True)
class Building:
    """A route that is being installed, and what for."""

    name: str
    role: Role


@dataclass(slots=True, eq=False)
class Pair:
    ends: Ends
    asked_by: str
    conditions: Conditions  # as they were asked for, without suspects
    by_hand: Path | None = None  # the path that somebody wants
    active: Route | None = None
    standby: Route | None = None
    building: Building | None = None
    better: int = 0  # evaluations in a row that found a better active way
    worse: int = 0  # … that found a better standby
    failures: int = 0
    retry_at: float = 0.0
    evaluate_at: float = 0.0
    problem: str = ""
    preferred: str = ""  # the route that both ends were told to use, and have said yes
    prefer_at: float = 0.0  # when they are told again
    prefer_pause: float = 0.0
    suspects: dict[Link, float] = field(default_factory=dict)  # until when
    alone_since: float | None = None  # neither end is on the bus
    unused_at: dict[str, float] = field(default_factory=dict)  # when an end last said so

    @property
    def routes(self) -> list[Route]:
        return [route for route in (self.active, self.standby) if route is not None]

    def is_unused(self, end: str, now: float) -> bool:
        """An end has no use for the pair: whether the other one had none either, of late.

        Who only hears datagrams cannot know whether it will hear another.
        """
        self.unused_at[end] = now
        return all(now - self.unused_at.get(key, -inf) <= UNUSED_FOR for key in self.ends)

    def prefer(self, now: float) -> list[Action]:
        """Have both ends use the active route, unless they have said that they do."""
        if self.active is None or self.active.name == self.preferred:
            return []
        self.prefer_pause = FIRST_TELLING
        self.prefer_at = now + self.prefer_pause
        return [Switch(self.ends, self.active.name)]

    def prefer_again(self, now: float) -> list[Action]:
        """The same, when there was no answer: later each time."""
        if now < self.prefer_at:
            return []
        pause = min(2 * self.prefer_pause, LAST_RETRY)
        actions = self.prefer(now)
        self.prefer_pause, self.prefer_at = pause, now + pause
        return actions

    def postpone(self, now: float) -> None:
        """It failed: wait longer each time."""
        self.failures += 1
        self.retry_at = now + min(LAST_RETRY, FIRST_RETRY * 2 ** min(self.failures, 8))

    def suspect(self, found: Iterator[Link], now: float) -> None:
        for link in found:
            self.suspects[link] = now + SUSPECT_FOR


def suspected(path: Path, end: str, at: str) -> Iterator[Link]:
    """Which links of a path may have failed, when `end` heard of it from the node `at`.

    The one behind that node; all, when nobody said anything.
    """
    seen_from_end = path if path[0] == end else path[::-1]
    for here, other in pairwise(seen_from_end):
        if at not in seen_from_end or here == at:
            yield link_of(here, other)


# Actions -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Build:
    """Install a route, and tell `built` or `failed`."""

    ends: Ends
    route: str
    path: Path
    active: bool  # send on it at once


@dataclass(frozen=True, slots=True)
class Switch:
    """Have both ends send on this route, and tell `switched` if both do."""

    ends: Ends
    route: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Take a route away from these nodes."""

    route: str
    path: Path


@dataclass(frozen=True, slots=True)
class Tell:
    """A route has come or gone: an event for whoever listens."""

    route: str
    path: Path
    up: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The pair has an active route."""

    ends: Ends


@dataclass(frozen=True, slots=True)
class NoWay:
    """What was asked for the pair cannot be had, and why; `found`: there is a path, it was not laid."""

    ends: Ends
    problem: str
    found: bool = False


Action = Build | Switch | Drop | Tell | Ready | NoWay


def gone(route: Route, reason: str) -> list[Action]:
    return [Drop(route.name, route.path), Tell(route.name, route.path, up=False, reason=reason)]
