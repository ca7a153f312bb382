"""A whole mesh in one process and on one clock: nodes with engine and control, a bus, a node manager.

Only the transport of links, the bus's sockets and the clock are stand-ins; the manager's service, the
nodes' control, signed orders, sessions and streams are what runs in production.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from unittest.mock import patch

from bus import Refused, Request
from nodes import api
from nodes import control as control_module
from nodes import obeying as obeying_module
from nodes.control import Control
from nodes.engine import Engine
from nodes.links.memory import MemoryLink, Nature, World
from nodes.links.peers import Peers
from nodes.manager import commands as commands_module
from nodes.manager import describing as describing_module
from nodes.manager import people as people_module
from nodes.manager import service as service_module
from nodes.manager.pairs import ends_of
from nodes.manager.service import Manager
from nodes.obeying import Obedience
from nodes.observer import Observer
from nodes.orders import Guard
from nodes.relaying import Relaying
from nodes.wire import DATA_LANES, Code
from tests.support.memory_mesh import keypair
from tests.support.posts import Box, Post
from tests.support.small_bus import Broker, Participant
from tests.support.steered import Clock, SteeredLoop
from tests.support.talks import PORT, Conversation
from tests.support.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bus import Bus
    from nodes.links.base import Link, Packet
    from nodes.links.zeromq import Transport
    from nodes.mesh import Relay
    from nodes.pump import Pump

_CLOCKED = (
    control_module,
    obeying_module,
    commands_module,
    describing_module,
    people_module,
    service_module,
)
_MANAGER = "the manager"
_T = TypeVar("_T")
FOUL = ("swallow", "change", "double", "starve")


class _Transport:
    """Links are made by the test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.endpoint = ""
        self.counters: Counter[str] = Counter()


class _Between(Relaying):
    """A relay that may do its neighbours ill."""

    node: Node

    def pass_on(self, came_from: Link, entry: Relay, packet: Packet) -> bool:
        match self.node.foul:
            case "swallow":
                return True
            case "change" if packet.payload:
                packet.payload[-1] ^= 1
            case "double":
                super().pass_on(came_from, entry, packet)
            case "starve" if 1 <= packet.lane <= DATA_LANES:
                return True
        return super().pass_on(came_from, entry, packet)


class Node:
    """One node, from its start to its end; another start is another Node."""

    def __init__(self, mesh: WholeMesh, name: str) -> None:
        self.name = name
        self.mesh = mesh
        pair = keypair(name)
        self.key = pair.public
        draw = random.Random(f"{name} {mesh.world.now} {mesh.starts}")
        self.engine = Engine(pair, lambda: mesh.world.now, draw.randbytes)
        self.engine.mesh.new_label = lambda: draw.randrange(1, 1 << 32)
        self.engine.observer.wake = self._wake
        self.engine.listeners[PORT] = self
        self.engine.datagrams.bind(PORT, Box(mesh.post, self.key), None)
        relaying = _Between(
            self.engine.mesh, self.engine.links, self.engine._probing, self.engine.counters
        )
        relaying.node = self
        self.engine._relaying = relaying
        self.foul = ""  # one of FOUL
        self.frozen_until = 0.0
        self.alive = True
        self.links: dict[str, MemoryLink] = {}  # by name
        guard = Guard(pair.public, draw.randbytes(16), mesh.manager_pair.public)
        self.obedience = Obedience(
            self.engine, guard, lambda _key: True, Path("/nonexistent/node.manager")
        )
        self.bus = Participant(mesh.broker, pair.public)
        self.routed = 0
        self.task = mesh.loop.create_task(self._run())
        self._tick()

    def _wake(self, when: float) -> None:
        self.mesh.world.at(when, self._timer)

    def _timer(self) -> None:
        if self.frozen_until > self.mesh.world.now:
            self.mesh.world.at(self.frozen_until, self._timer)
        elif self.alive:
            self.engine.handle_timer()

    def _tick(self) -> None:
        if self.alive:
            now = self.mesh.world.now
            if self.frozen_until <= now:
                self.engine.tick()
            self.mesh.world.at(max(now + 1.0, self.frozen_until), self._tick)

    def freeze(self, seconds: float) -> None:
        """Neither hear nor say anything for so long; what others send waits, as long as they do."""
        world = self.mesh.world
        self.frozen_until = world.now + seconds
        self.mesh.broker.away.add(self.key)
        for link in self.links.values():
            link.partition()
        world.at(self.frozen_until, self._thaw)

    def _thaw(self) -> None:
        if self.frozen_until <= self.mesh.world.now:
            self.mesh.broker.away.discard(self.key)
            for link in self.links.values():
                link.heal()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            transport = cast("Transport", _Transport(self.name))
            peers = Peers(self.key, lambda: 0.5)
            bus = cast("Bus", self.bus)
            self.control = Control(bus, self.engine, transport, self.obedience, peers, tasks)
            await self.control.start([])

    def incoming(self, pump: Pump, origin: str, greeting: bytes) -> None:
        self.mesh.conversations[int(greeting)].asked(self, pump, origin)

    def kill(self) -> None:
        self.alive = False
        self.engine.observer = Observer()  # nobody hears of it any more
        board = self.engine._board  # its descriptors are closed, as when a process ends
        board.cut(list(board.pumps), Code.LINK_LOST)
        self.task.cancel()
        if self.mesh.broker.present.get(self.key) is self.bus:
            del self.mesh.broker.present[self.key]
        for link in list(self.links.values()):
            link.cut("killed")


async def _heard(answer: Awaitable[bytes]) -> None:
    """That there is no such way now is an answer, too."""
    with contextlib.suppress(Refused):
        await answer


class WholeMesh:
    """See the module. Everything is by the nodes' names."""

    def __init__(self, names: str | list[str], seed: int = 0, nature: Nature | None = None) -> None:
        self.world = World(seed)
        self.nature = nature or Nature(delay=0.005, jitter=0.005, rate=20e6, capacity=1 << 18)
        self.loop = SteeredLoop(self.world)
        self.broker = Broker(self.world)
        self.manager_pair = keypair(_MANAGER)
        self.starts = 0
        self.nodes: dict[str, Node] = {}
        self.past: list[Node] = []  # nodes that were killed
        self.links: dict[tuple[str, str], MemoryLink] = {}
        self.conversations: list[Conversation] = []
        self.post = Post(self)
        self.wanted: dict[tuple[str, str], api.Policy] = {}  # what people want, by ends
        self._wishes: list[asyncio.Task[None]] = []
        self.troubles = Troubles(self)
        self._clocks = contextlib.ExitStack()
        folder = self._clocks.enter_context(tempfile.TemporaryDirectory(prefix="whole-mesh-"))
        self.manager_file = Path(folder) / service_module.WISHES
        for module in _CLOCKED:
            self._clocks.enter_context(patch.object(module, "time", Clock(self.world)))
        self.manager: Manager | None = None
        self._managing: asyncio.Task[None] | None = None
        self.start_manager()
        for name in names:
            self.start(name)

    # Nodes and links ----------------------------------------------------------------------------

    def start(self, name: str) -> Node:
        self.starts += 1
        node = self.nodes[name] = Node(self, name)
        return node

    def kill(self, name: str) -> None:
        node = self.nodes.pop(name)
        self._inside(node.kill)
        self.past.append(node)

    def link(self, a: str, b: str) -> None:
        """Link two nodes, unless they are."""
        if (a, b) in self.links and self.links[a, b].alive and self.links[b, a].alive:
            return
        one, other = self.nodes[a], self.nodes[b]
        if any(
            self.links[ends].alive for ends in ((a, b), (b, a)) if ends in self.links
        ):  # one end does not know yet that it is down
            return
        ends = self._inside(
            lambda: self.world.link(one.key, one.engine, other.key, other.engine, self.nature)
        )
        self.links[a, b], self.links[b, a] = ends
        one.links[b], other.links[a] = ends

    def _inside(self, call: Callable[[], _T]) -> _T:
        """Call where a loop runs."""

        async def run() -> _T:
            return call()

        return self.loop.run_until_complete(run())

    # The manager --------------------------------------------------------------------------------

    def start_manager(self) -> None:
        """A manager that knows nothing."""
        self._managing = self.loop.create_task(self._manage())

    def kill_manager(self) -> None:
        if self._managing is not None:
            self._managing.cancel()
            self._managing = self.manager = None
            self.broker.served.clear()
            self.broker.present.pop(self.manager_pair.public, None)

    async def _manage(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            bus = cast("Bus", Participant(self.broker, self.manager_pair.public))
            manager = Manager(bus, self.manager_pair, tasks, self.manager_file)
            draw = random.Random(self.world.now)
            manager._planner._new_route = lambda: draw.randbytes(8).hex()
            await manager.serve()
            self.manager = manager
            while True:
                await asyncio.sleep(service_module.TICK)
                manager.tick()

    def wish(self, a: str, b: str, policy: api.Policy) -> None:
        """Somebody says which way is good between two keys; only while there is a manager."""
        manager = self.manager
        if manager is not None:
            body = api.pack(api.Wanted(a, b, policy))
            request = Request(api.POLICY, "somebody", body, 10.0)
            self.wanted[ends_of(a, b)] = policy
            self._wishes.append(self.loop.create_task(_heard(manager._people._policy(request))))

    # Conversations ------------------------------------------------------------------------------

    def talk(self, a: str, b: str) -> Conversation:
        talk = Conversation(self, len(self.conversations), self.nodes[a], self.nodes[b])
        self.conversations.append(talk)
        return talk

    def run(self, seconds: float) -> None:
        """Let time pass; the apps look every so often at their descriptors."""
        end = self.world.now + seconds
        while self.world.now < end:
            self.loop.run_until_complete(asyncio.sleep(min(0.05, end - self.world.now)))
            for talk in self.conversations:
                talk.turn()
            self.troubles.look()
            self.check()

    def check(self) -> None:
        """No part has failed."""
        tasks = [node.task for node in self.nodes.values()]
        for wish in self._wishes:
            if wish.done() and not wish.cancelled():
                wish.result()
        for task in [*tasks, *([self._managing] if self._managing else [])]:
            if task.done():
                task.result()
                raise AssertionError("a part of the mesh has ended")

    def close(self) -> None:
        for talk in self.conversations:
            talk.near.close()
            talk.far.close()
            talk.task.cancel()
        self.kill_manager()
        for name in list(self.nodes):
            self.kill(name)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.1))
        self.loop.close()
        self._clocks.close()
