"""Installs a route along a path, hop by hop from the far end, and takes it away again."""

from __future__ import annotations

import itertools
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from bus import Bus, BusError
from nodes import api

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

PATIENCE: Final = 3.0  # s for one node to answer


class RouteFailed(Exception):
    """A node on the way did not take its part; says which and why."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A route that stands: its path, and the first hop of each end."""

    route: str
    path: tuple[str, ...]
    first_hops: dict[str, api.Hop]  # by the key of the end

    def uses(self, a: str, b: str | None) -> bool:
        """Whether it passes the node `a`, or with `b` the link between the two."""
        if b is None:
            return a in self.path
        return any({a, b} == set(pair) for pair in itertools.pairwise(self.path))


async def install(bus: Bus, path: Sequence[str]) -> Installed:
    """Install both directions; raises RouteFailed, having taken back what was done."""
    route = secrets.token_hex(8)
    near, far = path[0], path[-1]
    try:
        # The way back first: its far end is the near end. So the far node learns its own way
        # back together with its label, and can answer the first frame that comes.
        back: api.Hop | None = None
        for here, before in itertools.pairwise(path):
            peer = far if here == near else None
            label = await _ask(bus, here, api.Install(route, before, peer, back))
            back = api.Hop(here, label)
        onward = back
        for here, before in itertools.pairwise(path[::-1]):
            peer = near if here == far else None
            label = await _ask(bus, here, api.Install(route, before, peer, onward))
            onward = api.Hop(here, label)
    except RouteFailed:
        await remove(bus, route, path)
        raise
    assert onward is not None  # noqa: S101 - a path has two nodes or more
    assert back is not None  # noqa: S101
    return Installed(route, tuple(path), {near: onward, far: back})


async def remove(bus: Bus, route: str, path: Sequence[str]) -> None:
    """Take a route away; nodes that do not answer have lost it or will."""
    body = api.pack(api.RouteName(route))
    for key in path:
        try:
            await bus.request(api.REMOVE, body, to=key, timeout=PATIENCE)
        except BusError as error:
            log.info("route %s was not removed at %s: %s", route, key, error)


async def _ask(bus: Bus, key: str, request: api.Install) -> int:
    try:
        body = await bus.request(api.INSTALL, api.pack(request), to=key, timeout=PATIENCE)
        return api.unpack(body, api.Installed).label
    except (BusError, api.BadBody, msgspec.MsgspecError) as error:
        raise RouteFailed(f"node {key} did not take its part: {error}") from None
