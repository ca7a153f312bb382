"""The node's side of the bus: registers, dials neighbours, asks for routes.

Without the manager everything that stands goes on: sessions, links, and redialling a neighbour at
the address it had. What the manager has the node do is in nodes.obeying.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from bus import Bus, BusError, NotPresent, Refused
from bus.identity import is_key
from nodes import api, seen
from nodes.errors import Unreachable
from nodes.linking import Linking
from nodes.mesh import Relay
from nodes.obeying import WrongManager
from nodes.pinning import PinError
from nodes.shared import Shared
from nodes.wire import Code

if TYPE_CHECKING:
    from bus import Request
    from nodes.engine import Engine
    from nodes.lane import Lane
    from nodes.links.base import Metrics
    from nodes.links.peers import Peers
    from nodes.links.zeromq import Transport
    from nodes.obeying import Obedience

log = logging.getLogger(__name__)

REGISTER_EVERY: Final = 3.0  # s
ROUTE_PATIENCE: Final = 3.0  # s in which a node or a link may still appear
FIRST_RETRY: Final = 0.1  # s
_MAX_NAMES: Final = 4096
_REPORT_TIMEOUT: Final = 3.0


class Control:
    """See the module. `transport` listens already, if the node listens at all."""

    def __init__(
        self,
        bus: Bus,
        engine: Engine,
        transport: Transport,
        obedience: Obedience,
        peers: Peers,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._bus = bus
        self._engine = engine
        self._transport = transport
        self._name = transport.name
        self._endpoint = transport.endpoint
        self._obedience = obedience
        self._tasks = tasks
        self._due = asyncio.Event()  # a registration is due
        self._registered = asyncio.Event()
        self._names: dict[str, str] = {}
        self._routing: Shared[str, Lane] = Shared(tasks)
        self.linking = Linking(bus, transport, peers, self._registered, self._due.set)
        self._last_problem = ""
        self._moved: dict[
            str, tuple[float, int]
        ] = {}  # by neighbour: when, bytes both ways by then

    async def start(self, links: list[str]) -> None:
        """Begin; `links` are names or keys of nodes to dial and keep dialled."""
        self._bus.answer(api.ORDER, self._obedience.handle)
        self._bus.answer(api.STATUS, self._status)
        self._bus.on_reconnect(self._due.set)
        self._obedience.suggested = self.linking.suggested
        observer = self._engine.observer
        observer.link_up, observer.link_down = self._link_up, self._link_down
        observer.route_down, observer.route_wanted = self._route_down, self._route_wanted
        self._tasks.create_task(self._keep_registered())
        self._tasks.create_task(self._hear_manager())
        self.linking.add(links)
        self._tasks.create_task(self.linking.run(self._tasks))

    # Routes -------------------------------------------------------------------------------------

    async def route(self, target: str) -> Lane:
        """The lane to a node, by its name or key; raises Unreachable."""
        lane = self.known(target)
        if lane is not None:
            return lane
        return await self._routing.get(target, lambda: self._find(target))

    def known(self, target: str) -> Lane | None:
        """The lane to a node to which there is a way already."""
        return self._engine.lane(target if is_key(target) else self._names.get(target, ""))

    async def _find(self, target: str) -> Lane:
        """Ask the manager until there is a way or the patience ends; raises Unreachable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ROUTE_PATIENCE
        pause = FIRST_RETRY
        while True:
            problem = "the route was lost at once"
            try:
                lane = await self._ask_for_route(target)
                if lane is not None:
                    return lane
            except NotPresent:
                problem = "no node manager is on the bus; start one"
            except Refused as error:
                problem = str(error)
                if error.err in {"itself", "bad_body"}:
                    deadline = 0.0
                if error.err == "unregistered":
                    self._due.set()
            except (BusError, api.BadBody) as error:
                problem = str(error)
            if loop.time() + pause >= deadline:
                raise Unreachable(f"no way to node {target!r}: {problem}", Code.NO_ROUTE)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def _ask_for_route(self, target: str) -> Lane | None:
        """Have the manager lay a route; by the time it answers both ends have their orders."""
        body = await self._bus.request(api.ROUTE, api.pack(api.Query(target)), timeout=10)
        route = api.unpack(body, api.Route)
        if not is_key(target):
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            self._names[target] = route.peer
        lane = self._engine.lane(route.peer)
        if lane is None or lane.session.ways.of(route.route) is None:  # its view was stale
            self._route_lost(route.route, "it is not here")
            return None
        return lane

    def _route_down(self, route: str, _peer: str, reason: str, at: str) -> None:
        self._route_lost(route, reason, at)

    def _route_wanted(self, peer: str, _reason: str) -> None:
        """A session has no way any more: get it another before its streams are cut."""
        self._tasks.create_task(self._seek(peer))

    async def _seek(self, peer: str) -> None:
        try:
            await self._routing.get(peer, lambda: self._find(peer))
        except Unreachable as error:  # what stands waits, and the session asks again
            self._engine.unreachable(peer, error.code)

    def _route_lost(self, route: str, reason: str, at: str = "") -> None:
        self._report(api.RELEASE, api.Release(route, reason[:256], at))

    # What people ask ----------------------------------------------------------------------------

    async def _status(self, _request: Request) -> bytes:
        engine = self._engine
        relays = [
            api.RelayInfo(
                entry.route, neighbour, entry.onward.neighbour, entry.frames, entry.octets
            )
            for neighbour, table in engine.mesh.tables.items()
            for entry in table.values()
            if isinstance(entry, Relay)
        ]
        return api.pack(
            api.Status(
                self._name,
                engine.key,
                sorted(engine.links),
                sorted(engine.sessions)[: seen.MAX_ROWS],
                relays[: seen.MAX_ROWS],
                engine.streams,
                dict(engine.counters + self._transport.counters),
            )
        )

    # Registration and links ---------------------------------------------------------------------

    async def _keep_registered(self) -> None:
        while True:
            self._due.clear()
            try:
                await self._register()
                self._say("")
            except (BusError, api.BadBody, WrongManager, PinError) as error:
                self._registered.clear()
                self._say(f"not registered at a node manager: {error}")
            try:
                async with asyncio.timeout(REGISTER_EVERY if self._registered.is_set() else 0.3):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def _register(self) -> None:
        """Tell the manager the whole state; raises BusError, BadBody, WrongManager, PinError."""
        guard, standing = self._obedience.guard, self._obedience.standing()
        digest = 0
        for said in standing:
            digest ^= int(said.route, 16)
        report = api.Registration(
            self._name,
            self._endpoint,
            guard.boot,
            self._obedience.clock(),
            guard.serial,
            [self._link_state(key, link.metrics()) for key, link in self._engine.links.items()],
            len(standing),
            digest,
            self.linking.peers.automatic,
        )
        body = await self._bus.request(api.REGISTER, api.pack(report), timeout=_REPORT_TIMEOUT)
        answer = api.unpack(body, api.Registered)
        self._obedience.trust(answer.manager)
        self._registered.set()
        if answer.tell:
            await self._tell_routes()
        for route in self._obedience.unused(time.monotonic()):
            self._report(api.RELEASE, api.Release(route, unused=True))

    async def _tell_routes(self) -> None:
        """The manager is new, or has lost count."""
        standing = self._obedience.standing()
        for at in range(0, max(1, len(standing)), api.MAX_STANDING):
            part = standing[at : at + api.MAX_STANDING]
            more = at + api.MAX_STANDING < len(standing)
            body = api.pack(api.Standing(part, more))
            await self._bus.request(api.STANDING, body, timeout=_REPORT_TIMEOUT)

    def _link_state(self, neighbour: str, found: Metrics) -> api.LinkState:
        now, moved = time.monotonic(), found.bytes_in + found.bytes_out
        then, before = self._moved.get(neighbour, (now, moved))
        self._moved[neighbour] = (now, moved)
        used = max(0, moved - before) / (now - then) if now > then else 0.0
        return api.LinkState(
            neighbour, found.rtt, found.rttvar, found.retransmits, found.rate, used, found.queued
        )

    async def _hear_manager(self) -> None:
        while True:
            try:
                async for _ in await self._bus.subscribe(api.EVENT_MANAGER):
                    self._due.set()
            except BusError as error:
                log.debug("not subscribed to the manager's events: %s", error)
            await asyncio.sleep(REGISTER_EVERY)

    def _say(self, problem: str) -> None:
        """Log a problem when it begins and when it ends, not each time."""
        if problem != self._last_problem:
            self._last_problem = problem
            log.warning("%s", problem) if problem else log.info("registered at the node manager")

    def _link_up(self, neighbour: str) -> None:
        self.linking.link_up(neighbour)
        self._report(api.LINK, api.LinkReport(neighbour, up=True))

    def _link_down(self, neighbour: str, reason: str) -> None:
        self.linking.link_down(neighbour)
        self._moved.pop(neighbour, None)
        self._report(api.LINK, api.LinkReport(neighbour, up=False, reason=reason[:256]))

    def _report(self, subject: str, value: api.LinkReport | api.Release) -> None:
        self._tasks.create_task(self._send_report(subject, api.pack(value)))

    async def _send_report(self, subject: str, body: bytes) -> None:
        try:
            await self._bus.request(subject, body, timeout=_REPORT_TIMEOUT)
        except BusError:
            self._due.set()  # the whole state will be told as soon as somebody listens
