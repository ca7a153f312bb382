"""The node manager as a program: `python -P -m nodes.manager.service`, started by viscript."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from bus import Bus, BusError, Overflow, Refused, Unreachable, process
from bus.identity import short
from nodes import api
from nodes.manager import routes
from nodes.manager.routes import Installed, RouteFailed
from nodes.manager.topology import Change, NameTaken, Node, TooManyNodes, Topology
from nodes.shared import Shared, Stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bus import Request

log = logging.getLogger(__name__)

_TICK: Final = 1.0
MAX_ROUTES: Final = 20_000


class Manager:
    """Answers mesh.*; `tasks` is where routes are built and taken away."""

    def __init__(self, bus: Bus, tasks: asyncio.TaskGroup) -> None:
        self._bus = bus
        self._tasks = tasks
        self._topology = Topology()
        self._routes: dict[frozenset[str], Installed] = {}
        self._building: Shared[frozenset[str], Installed] = Shared(tasks)

    async def serve(self) -> None:
        for subject, handler in (
            (api.REGISTER, self._register),
            (api.LINK, self._link),
            (api.RESOLVE, self._resolve),
            (api.DIAL, self._dial),
            (api.ROUTE, self._route),
            (api.RELEASE, self._release),
            (api.NODES, self._nodes),
        ):
            await self._serve(subject, _guarded(handler))
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
        """Once a second: forget the silent.

        Their routes stay: one who lost only the bus still carries data, and when one has died its
        neighbours report the lost links.
        """
        for change in self._topology.expire(time.monotonic()):
            self._tell(change, "it fell silent")

    # Requests -----------------------------------------------------------------------------------

    async def _register(self, request: Request) -> bytes:
        report = api.unpack(request.body, api.Registration)
        links = set(report.links)
        try:
            changes = self._topology.register(
                request.sender, report.name, report.endpoint, links, time.monotonic()
            )
        except NameTaken as error:
            holder = short(str(error))
            text = f"the name {report.name!r} belongs to the node {holder}; choose another --name"
            raise Refused(409, "name_taken", text) from None
        except TooManyNodes:
            raise Refused(
                503, "too_many_nodes", "this manager has all the nodes it takes"
            ) from None
        self._changed(changes, "as a node reports")
        return api.pack(api.Registered(self._bus.key))

    async def _link(self, request: Request) -> bytes:
        report = api.unpack(request.body, api.LinkReport)
        self._sender(request)
        changes = self._topology.link(request.sender, report.neighbour, up=report.up)
        self._changed(changes, report.reason or "as a node reports")
        return api.pack(api.Empty())

    async def _resolve(self, request: Request) -> bytes:
        node = self._find(request)
        return api.pack(api.Resolved(node.key, node.name))

    async def _dial(self, request: Request) -> bytes:
        caller, node = self._sender(request), self._find(request)
        if node.key == caller.key:
            raise Refused(400, "itself", "a node does not link to itself")
        body = api.pack(api.Expect(caller.key))
        try:
            await self._bus.request(api.EXPECT, body, to=node.key, timeout=routes.PATIENCE)
        except BusError as error:
            text = f"node {node.name!r} does not answer: {error}"
            raise Refused(503, "node_silent", text) from None
        return api.pack(api.Dial(node.key, node.endpoint))

    async def _route(self, request: Request) -> bytes:
        caller, node = self._sender(request), self._find(request)
        if node.key == caller.key:
            raise Refused(400, "itself", f"{node.name!r} is this node itself")
        pair = frozenset((caller.key, node.key))
        standing = self._routes.get(pair)
        if standing is None:  # both ends may ask at once: they share one route
            standing = await self._building.get(pair, lambda: self._build(pair, caller, node))
        hop = standing.first_hops[caller.key]
        return api.pack(api.Route(standing.route, node.key, hop))

    async def _build(self, pair: frozenset[str], caller: Node, node: Node) -> Installed:
        path = self._topology.path(caller.key, node.key)
        if path is None:
            text = f"there is no path of links from {caller.name!r} to {node.name!r}"
            raise Refused(404, "no_route", text)
        if len(self._routes) >= MAX_ROUTES:
            raise Refused(503, "too_many_routes", "this manager has all the routes it takes")
        try:
            built = await routes.install(self._bus, path)
        except RouteFailed as error:
            raise Refused(503, "route_failed", str(error)) from None
        self._routes[pair] = built
        self._announce(built, "up", "")
        return built

    async def _release(self, request: Request) -> bytes:
        name = api.unpack(request.body, api.RouteName).route
        for pair, standing in list(self._routes.items()):
            if standing.route == name and request.sender in pair:
                self._take_down(pair, "an end gave it up")
        return api.pack(api.Empty())

    async def _nodes(self, _request: Request) -> bytes:
        age = time.time() - time.monotonic()
        nodes = [
            api.NodeInfo(node.name, node.key, node.endpoint, sorted(node.links), node.since + age)
            for node in self._topology.nodes.values()
        ]
        return api.pack(api.Nodes(nodes, [list(route.path) for route in self._routes.values()]))

    # Shared -------------------------------------------------------------------------------------

    def _sender(self, request: Request) -> Node:
        node = self._topology.nodes.get(request.sender)
        if node is None:
            raise Refused(409, "unregistered", "register first: this manager does not know you")
        return node

    def _find(self, request: Request) -> Node:
        target = api.unpack(request.body, api.Query).to
        node = self._topology.find(target)
        if node is None:
            known = ", ".join(sorted(n.name for n in self._topology.nodes.values())[:20])
            text = f"no node {target!r} is registered (there are: {known or 'none'})"
            raise Refused(404, "unknown_node", text)
        return node

    def _changed(self, changes: list[Change], reason: str) -> None:
        for change in changes:
            self._tell(change, reason)
            if not change.up:
                for pair, standing in list(self._routes.items()):
                    if standing.uses(change.a, change.b):
                        self._take_down(pair, "a link on the way was lost")

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
        node = self._topology.nodes.get(key)
        return node.name if node is not None else short(key)

    def _publish(self, subject: str, event: api.NodeEvent | api.LinkEvent | api.RouteEvent) -> None:
        """Tell whoever listens; while the broker is away nobody does."""
        with contextlib.suppress(Overflow):
            self._bus.publish_nowait(subject, api.pack(event))

    def _take_down(self, pair: frozenset[str], reason: str) -> None:
        standing = self._routes.pop(pair)
        self._announce(standing, "down", reason)
        self._tasks.create_task(routes.remove(self._bus, standing.route, standing.path))

    def _announce(self, route: Installed, state: str, reason: str) -> None:
        event = api.RouteEvent(route.route, list(route.path), state, reason)
        self._publish(api.EVENT_ROUTE, event)
        path = " - ".join(self._name(key) for key in route.path)
        log.info("route %s is %s%s", path, state, f": {reason}" if reason else "")


def _guarded(
    handler: Callable[[Request], Awaitable[bytes]],
) -> Callable[[Request], Awaitable[bytes]]:
    async def handle(request: Request) -> bytes:
        try:
            return await handler(request)
        except api.BadBody as error:
            raise Refused(400, "bad_body", str(error)) from None

    return handle


async def main(participant: process.Participant) -> int:
    try:
        async with asyncio.TaskGroup() as tasks:
            manager = Manager(participant.bus, tasks)
            await manager.serve()
            tasks.create_task(_tick(manager))
            await participant.stopping.wait()
            raise Stopped
    except* Stopped:
        log.info("stopped")
    return 0


async def _tick(manager: Manager) -> None:
    while True:
        await asyncio.sleep(_TICK)
        manager.tick()


def start() -> None:
    """Take no argument, and say so before joining the bus."""
    parser = argparse.ArgumentParser(prog="node-manager", description="The manager of a mesh.")
    parser.parse_args()
    process.run(main)


if __name__ == "__main__":
    start()
