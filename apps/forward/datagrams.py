"""The forwarding pair with `--udp`: datagrams instead of connections.

Nobody says when a conversation is over, so it is when nothing was said for `idle` seconds, or when room is
needed for another one. Datagrams that are too large or come too fast are dropped, as UDP does.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from apps.forward.flows import Flows
from apps.forward.places import Place
from bus.identity import is_key
from nodes.client import DatagramPort, Node, NodeError

LARGEST = 65_535
PAUSE = 0.2  # seconds, when there is no room for another conversation
AGAIN = 1.0  # seconds, when an address is not found or not reachable
SWEEP = 1.0  # seconds
MAX_HELD = 16  # datagrams of one conversation, until its socket is connected

Address = tuple[Any, ...]  # as sockets have it
W = TypeVar("W")  # DatagramPort or Outlet

IDLE = 60.0  # seconds, if nothing else is said


@dataclass(frozen=True)
class _Talk(Generic[W]):
    """A conversation: where it goes to, and the task that brings the answers."""

    way: W
    answers: asyncio.Task[None]

    def end(self) -> None:
        self.answers.cancel()  # which closes `way`


class Near:
    """Each local program that sends has a port of its own at the node, so that answers find it."""

    def __init__(self, sock: socket.socket, to: Place, limit: int, idle: float) -> None:
        self._sock = sock
        self._to = to
        self._flows: Flows[Address, _Talk[DatagramPort]] = Flows(limit, idle or IDLE)

    async def use(self, node: Node) -> None:
        """Until the node is lost."""
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [
                    tasks.create_task(self._outward(node, tasks)),
                    tasks.create_task(_sweep(self._flows)),
                ]
                await node.lost.wait()
                for task in work:
                    task.cancel()
        finally:
            self._flows.clear()

    async def _outward(self, node: Node, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, talker = await loop.sock_recvfrom(self._sock, LARGEST)
            except OSError:
                await asyncio.sleep(PAUSE)
                continue
            talk = self._flows.get(talker, time.monotonic())
            try:
                if talk is None:
                    talk = await self._begin(node, talker, tasks)
                await talk.way.send_to(*self._to, data)
            except NodeError:
                pass  # too large, no port is free, or the node was lost
            await asyncio.sleep(0)  # a flood leaves nobody else waiting

    async def _begin(
        self, node: Node, talker: Address, tasks: asyncio.TaskGroup
    ) -> _Talk[DatagramPort]:
        far = self._to.host
        port = await node.bind(allow=[far] if is_key(far) else None)
        talk = _Talk(port, tasks.create_task(self._homeward(port, talker)))
        for old in self._flows.add(talker, talk, time.monotonic()):
            old.end()
        return talk

    async def _homeward(self, port: DatagramPort, talker: Address) -> None:
        far = ""  # who answered first, if the node was meant by its name
        with contextlib.suppress(NodeError):
            async with port:
                async for came in port:
                    far = far or came.origin
                    if (came.origin, came.port) == (far, self._to.port):
                        self._flows.get(talker, time.monotonic())
                        with contextlib.suppress(OSError):  # no room, or nobody is there any more
                            self._sock.sendto(came.data, talker)


class Outlet:
    """The socket of one talker. What is said before it is connected waits, and holds up nobody else."""

    def __init__(self, to: Place) -> None:
        self._to = to
        self._sock: socket.socket | None = None
        self._held: list[bytes] = []

    def send(self, data: bytes) -> None:
        if self._sock is not None:
            with contextlib.suppress(OSError):  # no room, or nobody listens
                self._sock.send(data)
        elif len(self._held) < MAX_HELD:
            self._held.append(data)

    async def run(self, answer: Callable[[bytes], Awaitable[None]]) -> None:
        """Connect, and hand answers on, for ever; raises what `answer` raises."""
        loop = asyncio.get_running_loop()
        with await self._connect() as sock:
            while True:
                try:
                    data = await loop.sock_recv(sock, LARGEST)
                except (
                    OSError
                ):  # what an ICMP message said: nobody listens there, no way, forbidden
                    await asyncio.sleep(PAUSE)
                    continue
                await answer(data)
                await asyncio.sleep(0)  # a flood leaves nobody else waiting

    async def _connect(self) -> socket.socket:
        """Until it is connected: names may be found later, addresses be reachable later."""
        while True:
            try:
                sock = await _connected(self._to)
            except OSError:
                self._held.clear()
                await asyncio.sleep(AGAIN)
                continue
            self._sock, held = sock, self._held
            self._held = []
            for data in held:
                self.send(data)
            return sock


class Far:
    """Each program that sends from afar has a socket of its own, so that answers find it."""

    def __init__(self, to: Place, limit: int, idle: float) -> None:
        self._to = to
        self._flows: Flows[tuple[str, int], _Talk[Outlet]] = Flows(
            limit, idle or IDLE, whose=lambda talker: talker[0]
        )

    async def use(self, port: DatagramPort) -> None:
        """Until the node is lost: raises NodeLost."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_sweep(self._flows))
                async for came in port:
                    talker = came.origin, came.port
                    talk = self._flows.get(talker, time.monotonic())
                    if talk is None:
                        talk = self._begin(port, talker, tasks)
                    talk.way.send(came.data)
        finally:
            self._flows.clear()

    def _begin(
        self, port: DatagramPort, talker: tuple[str, int], tasks: asyncio.TaskGroup
    ) -> _Talk[Outlet]:
        outlet = Outlet(self._to)

        async def answer(data: bytes) -> None:
            with contextlib.suppress(
                NodeError
            ):  # too large; if the node was lost, all of this ends
                await port.send_to(*talker, data)
            self._flows.get(talker, time.monotonic())

        talk = _Talk(outlet, tasks.create_task(outlet.run(answer)))
        for old in self._flows.add(talker, talk, time.monotonic()):
            old.end()
        return talk


async def _connected(place: Place) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(*place, type=socket.SOCK_DGRAM)
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.settimeout(0)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


async def _sweep(flows: Flows[Any, Any]) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        for old in flows.expire(time.monotonic()):
            old.end()
