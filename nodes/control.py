"""The node's side of the bus: registers, dials neighbours, asks for routes, obeys the manager.

Without the manager everything that stands goes on: sessions, links, and redialling a neighbour at
the address it had.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from bus import Bus, BusError, NotPresent, Refused
from bus.identity import is_key, short
from nodes import api
from nodes.errors import Unreachable
from nodes.mesh import NoSuchNeighbour, Onward, Relay, TableFull
from nodes.shared import Shared
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bus import Request
    from nodes.engine import Engine
    from nodes.lane import Lane
    from nodes.links.zeromq import Transport

log = logging.getLogger(__name__)

REGISTER_EVERY: Final = 3.0  # s
ROUTE_PATIENCE: Final = 3.0  # s in which a node or a link may still appear
FIRST_RETRY, LAST_RETRY = 0.1, 3.0  # s between attempts to dial, before jitter
MAX_EXPECTED: Final = 4096  # keys that may dial in
_MAX_NAMES: Final = 4096
_REPORT_TIMEOUT: Final = 3.0


class Control:
    """See the module. `endpoint` is where neighbours dial this node."""

    def __init__(
        self,
        bus: Bus,
        engine: Engine,
        transport: Transport,
        name: str,
        endpoint: str,
        expected: set[str],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._bus = bus
        self._engine = engine
        self._transport = transport
        self._name = name
        self._endpoint = endpoint
        self._expected = expected
        self._tasks = tasks
        self._manager: str | None = None
        self._due = asyncio.Event()  # a registration is due
        self._registered = asyncio.Event()
        self._names: dict[str, str] = {}
        self._routing: Shared[str, Lane] = Shared(tasks)
        self._down: dict[str, asyncio.Event] = {}  # by neighbour: its link was lost
        self._last_problem = ""

    async def start(self, links: list[str]) -> None:
        """Begin; `links` are names or keys of nodes to dial and keep dialled."""
        for subject, handler in (
            (api.EXPECT, self._expect),
            (api.INSTALL, self._install),
            (api.REMOVE, self._remove),
        ):
            self._bus.answer(subject, self._guarded(handler))
        self._bus.answer(api.STATUS, self._status)
        self._bus.on_reconnect(self._due.set)
        observer = self._engine.observer
        observer.link_up, observer.link_down = self._link_up, self._link_down
        observer.session_lost = self._session_lost
        self._tasks.create_task(self._keep_registered())
        self._tasks.create_task(self._hear_manager())
        for link in links:
            self._tasks.create_task(self._keep_linked(link))

    # Routes -------------------------------------------------------------------------------------

    async def route(self, target: str) -> Lane:
        """The lane to a node, by its name or key; raises Unreachable."""
        key = target if is_key(target) else self._names.get(target, "")
        lane = self._engine.lane(key)
        if lane is not None:
            return lane
        return await self._routing.get(target, lambda: self._find(target))

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
        body = await self._bus.request(api.ROUTE, api.pack(api.Query(target)), timeout=10)
        route = api.unpack(body, api.Route)
        if not is_key(target):
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            self._names[target] = route.peer
        hop = Onward(route.hop.neighbour, route.hop.label)
        self._engine.bind(route.route, route.peer, hop)
        lane = self._engine.lane(route.peer)
        if lane is None or lane.session.route != route.route:  # the manager's view was stale
            await self._bus.request(api.RELEASE, api.pack(api.RouteName(route.route)), timeout=3)
            return None
        return lane

    def _session_lost(self, route: str) -> None:
        self._report(api.RELEASE, api.RouteName(route))

    # What the manager asks ----------------------------------------------------------------------

    def _guarded(
        self, handler: Callable[[Request], bytes]
    ) -> Callable[[Request], Awaitable[bytes]]:
        async def handle(request: Request) -> bytes:
            if request.sender != self._manager:
                raise Refused(
                    403, "not_the_manager", "this node obeys the manager it registered at"
                )
            try:
                return handler(request)
            except api.BadBody as error:
                raise Refused(400, "bad_body", str(error)) from None
            except NoSuchNeighbour as error:
                raise Refused(409, "no_link", f"there is no link to {error}") from None
            except TableFull as error:
                raise Refused(503, "table_full", f"too many routes from {error}") from None

        return handle

    def _expect(self, request: Request) -> bytes:
        key = api.unpack(request.body, api.Expect).key
        if key not in self._expected and len(self._expected) >= MAX_EXPECTED:
            raise Refused(503, "too_many_neighbours", "this node expects too many neighbours")
        self._expected.add(key)
        return api.pack(api.Empty())

    def _install(self, request: Request) -> bytes:
        order = api.unpack(request.body, api.Install)
        onward = Onward(order.onward.neighbour, order.onward.label) if order.onward else None
        if order.peer is not None:
            label = self._engine.end(order.route, order.neighbour, order.peer, onward)
        elif onward is not None:
            label = self._engine.relay(order.route, order.neighbour, onward)
        else:
            raise Refused(400, "bad_body", "a route that neither ends here nor goes on")
        return api.pack(api.Installed(label))

    def _remove(self, request: Request) -> bytes:
        self._engine.remove(api.unpack(request.body, api.RouteName).route)
        return api.pack(api.Empty())

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
                sorted(engine.mesh.sessions),
                relays,
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
            except (BusError, api.BadBody) as error:
                self._registered.clear()
                self._say(f"not registered at a node manager: {error}")
            try:
                async with asyncio.timeout(REGISTER_EVERY if self._registered.is_set() else 0.3):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def _register(self) -> None:
        report = api.Registration(self._name, self._endpoint, sorted(self._engine.links))
        body = await self._bus.request(api.REGISTER, api.pack(report), timeout=_REPORT_TIMEOUT)
        # The broker lets only role `manager` serve mesh.*, so who answered this is the manager.
        self._manager = api.unpack(body, api.Registered).manager
        self._registered.set()

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
        self._down.setdefault(neighbour, asyncio.Event()).clear()
        self._report(api.LINK, api.LinkReport(neighbour, up=True))

    def _link_down(self, neighbour: str, reason: str) -> None:
        self._down.setdefault(neighbour, asyncio.Event()).set()
        self._report(api.LINK, api.LinkReport(neighbour, up=False, reason=reason[:256]))

    def _report(self, subject: str, value: api.LinkReport | api.RouteName) -> None:
        self._tasks.create_task(self._send_report(subject, api.pack(value)))

    async def _send_report(self, subject: str, body: bytes) -> None:
        try:
            await self._bus.request(subject, body, timeout=_REPORT_TIMEOUT)
        except BusError:
            self._due.set()  # the whole state will be told as soon as somebody listens

    async def _keep_linked(self, target: str) -> None:
        pause = FIRST_RETRY
        known: api.Dial | None = None
        told = ""
        while True:
            try:
                known = await self._whom_to_dial(target, known)
                if known.key not in self._engine.links:
                    await self._transport.dial(known.endpoint, known.key)
                pause, told = FIRST_RETRY, ""
                await self._down.setdefault(known.key, asyncio.Event()).wait()
            except (BusError, api.BadBody, ConnectionError) as error:
                if str(error) != told:
                    told = str(error)
                    log.info("no link to %s yet: %s", target, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(pause * 2, LAST_RETRY)

    async def _whom_to_dial(self, target: str, known: api.Dial | None) -> api.Dial:
        """Key and endpoint of the neighbour; the last known when no manager can be asked."""
        try:
            await asyncio.wait_for(self._registered.wait(), _REPORT_TIMEOUT)
            body = await self._bus.request(api.DIAL, api.pack(api.Query(target)), timeout=5)
            dial = api.unpack(body, api.Dial)
        except (TimeoutError, BusError) as error:
            if isinstance(error, Refused) and error.err == "unregistered":
                self._due.set()
            if known is None or isinstance(error, Refused):
                if isinstance(error, TimeoutError):
                    raise ConnectionError("not registered at a node manager") from None
                raise
            return known
        log.debug("dialling %s at %s", short(dial.key), dial.endpoint)
        return dial
