"""Answers people who look at a node, over the bus: nodes.seen. Nothing here changes a route.

What is measured (ping, trace, speed) is bounded in time and in how much of it runs at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from bus import Refused
from bus.identity import from_bytes
from nodes import api, seen, showing
from nodes.errors import NodeError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bus import Bus, Request
    from nodes.control import Control
    from nodes.engine import Echo, Engine
    from nodes.lane import Lane
    from nodes.links.zeromq import Transport
    from nodes.obeying import Obedience
    from nodes.speed import Meter
    from nodes.ways import Way

MAX_AT_WORK: Final = 64  # measurements at the same time
MAX_HOPS: Final = api.MAX_PATH - 1
BETWEEN_PROBES: Final = 0.05  # s


class Answers:
    """See the module."""

    def __init__(
        self,
        bus: Bus,
        engine: Engine,
        transport: Transport,
        control: Control,
        obedience: Obedience,
        meter: Meter,
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._control = control
        self._obedience = obedience
        self._meter = meter
        self._at_work = 0
        for subject, handler in (
            (seen.PEERS, self._peers),
            (seen.ROUTES, self._routes),
            (seen.SESSIONS, self._sessions),
            (seen.STREAMS, self._streams),
            (seen.METRICS, self._metrics),
            (seen.PING, self._ping),
            (seen.TRACE, self._trace),
            (seen.SPEED, self._speed),
        ):
            bus.answer(subject, self._guarded(handler))

    def _guarded(
        self, handler: Callable[[Request], Awaitable[bytes]]
    ) -> Callable[[Request], Awaitable[bytes]]:
        async def guarded(request: Request) -> bytes:
            if self._at_work >= MAX_AT_WORK:
                raise Refused(503, "busy", "this node answers too many questions already")
            self._at_work += 1
            try:
                return await handler(request)
            except api.BadBody as error:
                raise Refused(400, "bad_body", str(error)) from None
            except Unreachable as error:
                raise Refused(404, "no_route", str(error)) from None
            except NodeError as error:
                raise Refused(503, "not_measured", str(error)) from None
            finally:
                self._at_work -= 1

        return guarded

    # Tables -------------------------------------------------------------------------------------

    async def _peers(self, _request: Request) -> bytes:
        known = self._control.linking.peers
        return api.pack(showing.peers(self._engine, known, self._dialled, _age()))

    def _dialled(self, key: str) -> bool:
        link = self._transport.link(key)
        return link is not None and link.dialled

    async def _routes(self, _request: Request) -> bytes:
        return api.pack(showing.routes(self._engine, self._obedience.path, time.monotonic()))

    async def _sessions(self, _request: Request) -> bytes:
        return api.pack(showing.sessions(self._engine, time.monotonic(), _age()))

    async def _streams(self, request: Request) -> bytes:
        page = api.unpack(request.body, seen.Page)
        return api.pack(showing.streams(self._engine, page.peer))

    async def _metrics(self, _request: Request) -> bytes:
        counters = self._engine.counters + self._transport.counters
        return showing.metrics(self._engine, self._transport.name, counters).encode()

    # Measurements -------------------------------------------------------------------------------

    async def _ping(self, request: Request) -> bytes:
        asked, begun = api.unpack(request.body, seen.Ping), time.monotonic()
        lane = await self._control.route(asked.to)
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def came(rtt: float) -> None:
            if not answer.done():
                answer.set_result(rtt)

        self._engine.ping(lane.peer, came)
        try:
            async with asyncio.timeout(asked.wait):
                rtt = await answer
        except TimeoutError:
            raise _silent(asked.to, asked.wait) from None
        used = lane.session.ways.used
        route = used.route if used is not None else ""
        return api.pack(seen.Pong(lane.peer, rtt, route, time.monotonic() - begun))

    async def _trace(self, request: Request) -> bytes:
        asked = api.unpack(request.body, seen.Trace)
        lane = await self._control.route(asked.to)
        way = _way(lane, standby=asked.standby)
        path = self._obedience.path(way.route)
        if path and path[0] != self._engine.key:
            path = path[::-1]
        hops = len(path) - 1 if path else MAX_HOPS
        times: list[list[float | None]] = [[None] * asked.probes for _ in range(hops)]
        keys = [""] * hops
        left = hops * asked.probes
        all_here = asyncio.Event()

        def heard(hop: int, number: int, echo: Echo) -> None:
            nonlocal left
            keys[hop], times[hop][number] = from_bytes(echo.key), echo.round_trip
            left -= 1
            if not left:
                all_here.set()

        for number in range(asked.probes):
            if number:
                await asyncio.sleep(BETWEEN_PROBES)
            for hop in range(hops):
                self._engine.probe(way, hop + 1, lambda e, h=hop, n=number: heard(h, n, e))  # type: ignore[misc]
        try:
            async with asyncio.timeout(asked.wait):
                await all_here.wait()
        except TimeoutError:
            pass  # what did not answer is shown as such
        end = next((at for at, key in enumerate(keys) if key == lane.peer), hops - 1)
        laid = path[1:] or [""] * hops
        shown = [
            seen.Hop(at + 1, keys[at], laid[at], times[at])
            for at in range(hops if path else end + 1)
        ]
        return api.pack(seen.Traced(lane.peer, way.route, path, shown))

    async def _speed(self, request: Request) -> bytes:
        asked = api.unpack(request.body, seen.Speed)
        lane = await self._control.route(asked.to)
        octets, seconds = await self._meter.measure(lane.peer, asked.seconds)
        return api.pack(seen.Measured(lane.peer, octets, seconds, lane.session.round_trip))


def _way(lane: Lane, *, standby: bool) -> Way:
    """The way in use, or one that stands by; raises Refused."""
    ways = lane.session.ways
    if not standby:
        if ways.used is None:
            raise Refused(404, "no_route", "the route was lost at once")
        return ways.used
    for way in ways.all:
        if way is not ways.used and way.onward is not None:
            return way
    raise Refused(404, "no_standby", "no route stands by; see why: viscript node why")


def _silent(target: str, wait: float) -> Refused:
    return Refused(504, "no_answer", f"node {target!r} did not answer within {wait:g} s")


def _age() -> float:
    """What makes Unix time of the monotonic clock."""
    return time.time() - time.monotonic()
