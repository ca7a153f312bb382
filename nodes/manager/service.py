"""The node manager as a program: `python -P -m nodes.manager.service`, started by viscript.

Nodes report what there is and what stands, also routes that an earlier manager laid. It keeps only what
people want for the ways between two nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

from bus import Bus, Overflow, Refused, Unreachable, process
from bus.arguments import ArgumentParser
from bus.identity import KeyPair, short
from nodes import api
from nodes.manager import keeping, routes
from nodes.manager.bodies import find, guarded, must_be_keys, name_of
from nodes.manager.commands import Commands, NotDone
from nodes.manager.pairs import (
    Build,
    Drop,
    Ends,
    NoWay,
    Ready,
    Switch,
    Tell,
    TooManyRoutes,
    ends_of,
)
from nodes.manager.people import People
from nodes.manager.planner import Planner
from nodes.manager.suggesting import suggest
from nodes.manager.topology import Change, NameTaken, Node, TooManyNodes, Topology
from nodes.orders import Expect, Peer, Suggest
from nodes.shared import Stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from bus import Request
    from nodes.manager.pairs import Action

log = logging.getLogger(__name__)

TICK: Final = 0.25  # s; at each some pairs are looked at, so 1,000 have had their turn in 8 s
ROUTE_PATIENCE: Final = 8.0  # s that a node waits for its route
SUGGEST_EVERY: Final = 10.0  # s
MAX_TOLD: Final = 8_192  # routes that end at one node
WISHES: Final = "ways.json"  # in the state folder
EXIT_FILE: Final = 8
DIFFERING: Final = 2  # registrations in a row; one may have crossed an order


class Manager:
    """Answers mesh.*; `tasks` is where routes are laid and taken away, `file` what people want.

    Raises WishFileError when the file is there and cannot be used.
    """

    def __init__(self, bus: Bus, keypair: KeyPair, tasks: asyncio.TaskGroup, file: Path) -> None:
        self._bus = bus
        self._tasks = tasks
        self._commands = Commands(bus, keypair.secret)
        self._topology = Topology()
        self._planner = Planner(self._topology, lambda: secrets.token_hex(8), keeping.load(file))
        self._people = People(
            self._topology,
            self._planner,
            self._outcome,
            self._carry_out,
            lambda wishes: keeping.save(file, wishes),
        )
        self._waiting: dict[Ends, list[asyncio.Future[None]]] = {}
        self._differing: dict[str, int] = {}  # by node: registrations in a row
        self._told: dict[str, list[api.StandingRoute]] = {}  # by node: the part that has come
        self._suggested: dict[str, float] = {}  # by node: when

    async def serve(self) -> None:
        for subject, handler in (
            (api.REGISTER, self._register),
            (api.STANDING, self._standing),
            (api.LINK, self._link),
            (api.RESOLVE, self._resolve),
            (api.DIAL, self._dial),
            (api.ROUTE, self._route),
            (api.RELEASE, self._release),
            *self._people.handlers,
        ):
            await self._serve(subject, guarded(handler))
        # Nodes register again when they hear this, and all is known as before.
        await self._bus.publish(api.EVENT_MANAGER, api.pack(api.ManagerEvent(self._bus.key, "up")))

    async def _serve(self, subject: str, handler: Callable[[Request], Awaitable[bytes]]) -> None:
        while True:
            try:
                await self._bus.serve(subject, handler)
            except Unreachable:  # the broker went away just now
                await self._bus.wait_connected()
            else:
                return

    def tick(self) -> None:
        """Each `TICK`: forget the silent, look at routes."""
        now = time.monotonic()
        self._changed(self._topology.expire(now), "it fell silent")
        self._carry_out(self._planner.tick(now))

    # What nodes report --------------------------------------------------------------------------

    async def _register(self, request: Request) -> bytes:
        report, key = api.unpack(request.body, api.Registration), request.sender
        must_be_keys(state.neighbour for state in report.links)
        new, now = key not in self._topology.nodes, time.monotonic()
        try:
            changes = self._topology.register(key, report, now)
        except NameTaken as error:
            holder = short(str(error))
            text = f"the name {report.name!r} belongs to the node {holder}; choose another --name"
            raise Refused(409, "name_taken", text) from None
        except TooManyNodes:
            text = "this manager has all the nodes it takes"
            raise Refused(503, "too_many_nodes", text) from None
        if self._commands.heard(key, report):
            self._carry_out(self._planner.restarted(key))
        self._changed(changes, "as a node reports")
        differs = self._planner.differs(key, report.routes, report.digest)
        self._differing[key] = self._differing.get(key, 0) + 1 if differs else 0
        self._told.pop(key, None)  # what it told in part before; it begins anew
        self._suggest(self._topology.nodes[key], now)
        tell = differs and (new or self._differing[key] >= DIFFERING)
        return api.pack(api.Registered(self._bus.key, tell))

    async def _standing(self, request: Request) -> bytes:
        part = api.unpack(request.body, api.Standing)
        key = self._sender(request).key
        must_be_keys(key for said in part.routes for key in said.path)
        told = self._told.setdefault(key, [])
        told += part.routes
        if len(told) > MAX_TOLD:
            del self._told[key]
            raise Refused(503, "too_many_routes", "this manager takes fewer routes of a node")
        if not part.more:
            del self._told[key]
            self._carry_out(self._planner.standing(key, told, time.monotonic()))
        return api.pack(api.Empty())

    async def _link(self, request: Request) -> bytes:
        report, node = api.unpack(request.body, api.LinkReport), self._sender(request)
        now = time.monotonic()
        changes = self._topology.link(node.key, report.neighbour, up=report.up, now=now)
        self._changed(changes, report.reason or "as a node reports")
        return api.pack(api.Empty())

    async def _release(self, request: Request) -> bytes:
        given, now = api.unpack(request.body, api.Release), time.monotonic()
        if given.unused:
            self._carry_out(self._planner.unused(request.sender, given.route, now))
        else:
            reason = f"an end lost it: {given.reason or 'it does not say why'}"
            self._carry_out(self._planner.lost(request.sender, given.route, given.at, reason, now))
        return api.pack(api.Empty())

    def _suggest(self, node: Node, now: float) -> None:
        """Tell a node that takes suggestions which links would serve; it decides."""
        if (
            not node.auto_peers
            or now - self._suggested.get(node.key, -SUGGEST_EVERY) < SUGGEST_EVERY
        ):
            return
        found = suggest(self._topology, node)
        if found:
            self._suggested[node.key] = now
            order = Suggest([Peer(other.key, other.endpoint) for other in found])
            self._tasks.create_task(self._try(node.key, order))

    async def _try(self, key: str, order: Suggest) -> None:
        try:
            await self._commands.send(key, "", order)
        except NotDone as error:
            log.info("a suggestion was not heard: %s", error)

    # What nodes ask -----------------------------------------------------------------------------

    async def _resolve(self, request: Request) -> bytes:
        node = self._find(api.unpack(request.body, api.Query).to)
        return api.pack(api.Resolved(node.key, node.name))

    async def _dial(self, request: Request) -> bytes:
        caller, node = self._sender(request), self._find(api.unpack(request.body, api.Query).to)
        if node.key == caller.key:
            raise Refused(400, "itself", "a node does not link to itself")
        if not node.endpoint:
            text = f"node {node.name!r} cannot be dialled; let it dial this one"
            raise Refused(409, "dials_only", text)
        try:
            await self._commands.send(node.key, "", Expect(caller.key))
        except NotDone as error:
            text = f"node {node.name!r} does not answer: {error}"
            raise Refused(503, "node_silent", text) from None
        return api.pack(api.Dial(node.key, node.endpoint))

    async def _route(self, request: Request) -> bytes:
        caller, node = self._sender(request), self._find(api.unpack(request.body, api.Query).to)
        if node.key == caller.key:
            raise Refused(400, "itself", f"{node.name!r} is this node itself")
        now = time.monotonic()
        return await self._outcome(
            ends_of(caller.key, node.key),
            node.key,
            lambda: self._planner.wanted(caller.key, node.key, now),
        )

    async def _outcome(self, ends: Ends, peer: str, begin: Callable[[], list[Action]]) -> bytes:
        """Begin something that ends in Ready or NoWay for a pair, and wait for that."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(ends, [])
        waiting.append(future)
        try:
            self._carry_out(begin())
            async with asyncio.timeout(ROUTE_PATIENCE):
                await future
        except TooManyRoutes:
            text = "this manager, or this node, has all the routes it may have"
            raise Refused(503, "too_many_routes", text) from None
        except TimeoutError:
            raise Refused(503, "route_failed", "the nodes on the way take too long") from None
        finally:
            if future in waiting:
                waiting.remove(future)
            if not waiting and self._waiting.get(ends) is waiting:
                del self._waiting[ends]
        pair = self._planner.pairs.get(ends)
        if pair is None or pair.active is None:
            raise Refused(503, "route_failed", "the route was lost at once")
        return api.pack(api.Route(pair.active.name, peer, list(pair.active.path)))

    # Actions ------------------------------------------------------------------------------------

    def _carry_out(self, actions: Iterable[Action]) -> None:
        start = self._tasks.create_task
        for action in actions:
            match action:
                case Build():
                    start(self._build(action))
                case Switch():
                    start(self._switch(action))
                case Drop():
                    start(routes.remove(self._commands, action.route, action.path))
                case Tell():
                    self._announce(action)
                case Ready():
                    self._settle(action.ends, None)
                case NoWay():
                    a, b = (self._name(key) for key in action.ends)
                    code, name = (503, "route_failed") if action.found else (404, "no_route")
                    self._settle(action.ends, Refused(code, name, f"{a} - {b}: {action.problem}"))

    async def _build(self, order: Build) -> None:
        try:
            await routes.install(self._commands, order.route, order.path, active=order.active)
        except NotDone as error:
            problem = f"{self._name(error.key)} did not take its part: {error}"
            done = self._planner.failed(
                order.ends, order.route, problem, error.key, time.monotonic()
            )
        else:
            done = self._planner.built(order.ends, order.route, order.path, time.monotonic())
        self._carry_out(done)

    async def _switch(self, order: Switch) -> None:
        if await routes.switch(self._commands, order.route, order.ends):
            self._planner.switched(order.ends, order.route)

    def _settle(self, ends: Ends, problem: Refused | None) -> None:
        for future in self._waiting.pop(ends, ()):
            if future.done():
                continue
            if problem is None:
                future.set_result(None)
            else:
                future.set_exception(problem)

    def _changed(self, changes: list[Change], reason: str) -> None:
        for change in changes:
            self._tell(change, reason)
            if change.b is None and not change.up:
                self._commands.forget(change.a)
                self._differing.pop(change.a, None)
                self._told.pop(change.a, None)
                self._suggested.pop(change.a, None)
        self._carry_out(self._planner.changed(changes, time.monotonic()))

    # Shared -------------------------------------------------------------------------------------

    def _sender(self, request: Request) -> Node:
        node = self._topology.nodes.get(request.sender)
        if node is None:
            raise Refused(409, "unregistered", "register first: this manager does not know you")
        return node

    def _find(self, target: str) -> Node:
        return find(self._topology, target)

    def _tell(self, change: Change, reason: str) -> None:
        state = "up" if change.up else "down"
        a = self._name(change.a)
        if change.b is None:
            self._publish(api.EVENT_NODE, api.NodeEvent(a, change.a, state))
            log.info("node %s is %s", a, state)
        else:
            self._publish(api.EVENT_LINK, api.LinkEvent(change.a, change.b, state, reason))
            log.info("link %s - %s is %s: %s", a, self._name(change.b), state, reason)

    def _name(self, key: str) -> str:
        return name_of(self._topology, key)

    def _publish(self, subject: str, event: api.NodeEvent | api.LinkEvent | api.RouteEvent) -> None:
        """Tell whoever listens; while the broker is away nobody does."""
        with contextlib.suppress(Overflow):
            self._bus.publish_nowait(subject, api.pack(event))

    def _announce(self, told: Tell) -> None:
        state = "up" if told.up else "down"
        event = api.RouteEvent(told.route, list(told.path), state, told.reason)
        self._publish(api.EVENT_ROUTE, event)
        path = " - ".join(self._name(key) for key in told.path)
        log.info("route %s is %s%s", path, state, f": {told.reason}" if told.reason else "")


async def main(participant: process.Participant) -> int:
    file, code = participant.environment.state_dir / WISHES, 0
    try:
        async with asyncio.TaskGroup() as tasks:
            manager = Manager(participant.bus, participant.keypair, tasks, file)
            await manager.serve()
            tasks.create_task(_tick(manager))
            await participant.stopping.wait()
            raise Stopped
    except* Stopped:
        log.info("stopped")
    except* keeping.WishFileError as group:
        log.error("%s", group.exceptions[0])  # noqa: TRY400 - the user's business, no traceback
        code = EXIT_FILE
    return code


async def _tick(manager: Manager) -> None:
    while True:
        await asyncio.sleep(TICK)
        manager.tick()


def start() -> None:
    """Take no argument, and say so before joining the bus."""
    parser = ArgumentParser(prog="node-manager", description="The manager of a mesh.")
    parser.parse_args()
    process.run(main)


if __name__ == "__main__":
    start()
