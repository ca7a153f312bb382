"""Installs a route along a path, hop by hop from the far ends, and takes it away again."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, TypeVar

from nodes import api
from nodes.manager.commands import NotDone
from nodes.orders import Bind, Install, Prefer, Remove

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from nodes.manager.commands import Commands

log = logging.getLogger(__name__)

_T = TypeVar("_T")


async def install(commands: Commands, route: str, path: Sequence[str], *, active: bool) -> None:
    """Install both directions and tell both ends; raises NotDone, having taken back what was done."""
    try:
        there, back = await _all(
            _one_way(commands, route, path), _one_way(commands, route, path[::-1])
        )
        near, far = path[0], path[-1]
        await _all(
            commands.send(near, route, Bind(far, there, list(path), active)),
            commands.send(far, route, Bind(near, back, list(path), active)),
        )
    except NotDone:
        await remove(commands, route, path)
        raise


async def _one_way(commands: Commands, route: str, path: Sequence[str]) -> api.Hop:
    """Install the direction from path[0] to path[-1]; returns its first hop."""
    onward: api.Hop | None = None
    for here, before in itertools.pairwise(path[::-1]):
        order = Install(before, peer=path[0] if onward is None else None, onward=onward)
        body = await commands.send(here, route, order)
        try:
            onward = api.Hop(here, api.unpack(body, api.Installed).label)
        except api.BadBody as error:
            raise NotDone(here, str(error)) from None
    assert onward is not None  # noqa: S101 - a path has two nodes or more
    return onward


async def switch(commands: Commands, route: str, ends: tuple[str, str]) -> bool:
    """Have both ends send on this route; whether both do. One that does not is told again later."""
    done = True
    a, b = ends
    for key, peer in ((a, b), (b, a)):
        try:
            await commands.send(key, route, Prefer(peer))
        except NotDone as error:
            done = False
            log.info("route %s is not preferred: %s", route, error)
    return done


async def remove(commands: Commands, route: str, path: Iterable[str]) -> None:
    """Take a route away; nodes that do not answer have lost it, or it will expire there."""
    for outcome in await asyncio.gather(
        *(commands.send(key, route, Remove()) for key in path), return_exceptions=True
    ):
        if isinstance(outcome, NotDone):
            log.info("route %s was not removed: %s", route, outcome)
        elif isinstance(outcome, BaseException):
            raise outcome


async def _all(*work: Awaitable[_T]) -> list[_T]:
    """Both, whatever becomes of the other one; raises what the first that failed raised."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in done if not isinstance(outcome, BaseException)]
