"""The forwarding pair with `--udp`: datagrams instead of connections.

Nobody says when a conversation is over, so it is when nothing was said for `idle` seconds, or when room is
needed for another one. Datagrams that are too large or come too fast are dropped, as UDP does.
"""

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from apps.forward.flows import Flows
from apps.forward.places import Place
from bus.identity import is_key
from nodes.client import DatagramPort, Node, NodeError

LARGEST = 65_535
PAUSE = 0.2  # seconds, when there is no room for another conversation
SWEEP = 1.0  # seconds

Address = tuple[Any, ...]  # as sockets have it
W = TypeVar("W")  # DatagramPort or socket

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
            data, talker = await loop.sock_recvfrom(self._sock, LARGEST)
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


class Far:
    """Each program that sends from afar has a socket of its own, so that answers find it."""

    def __init__(self, to: Place, limit: int, idle: float) -> None:
        self._to = to
        self._flows: Flows[tuple[str, int], _Talk[socket.socket]] = Flows(limit, idle or IDLE)

    async def use(self, port: DatagramPort) -> None:
        """Until the node is lost: raises NodeLost."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_sweep(self._flows))
                async for came in port:
                    talker = came.origin, came.port
                    talk = self._flows.get(talker, time.monotonic())
                    with contextlib.suppress(OSError):  # no address or room, or nobody listens
                        if talk is None:
                            sock = await _connected(self._to)
                            talk = _Talk(
                                sock, tasks.create_task(self._homeward(sock, port, talker))
                            )
                            for old in self._flows.add(talker, talk, time.monotonic()):
                                old.end()
                        talk.way.send(came.data)
        finally:
            self._flows.clear()

    async def _homeward(
        self, sock: socket.socket, port: DatagramPort, talker: tuple[str, int]
    ) -> None:
        loop = asyncio.get_running_loop()
        with sock:
            while True:
                try:
                    data = await loop.sock_recv(sock, LARGEST)
                    await port.send_to(*talker, data)
                except ConnectionRefusedError:  # nobody listens there just now
                    await asyncio.sleep(PAUSE)
                except NodeError:  # too large, or the node was lost
                    await asyncio.sleep(PAUSE)
                else:
                    self._flows.get(talker, time.monotonic())
                    await asyncio.sleep(0)  # a flood leaves nobody else waiting


def listen(place: Place) -> socket.socket:
    """Take the port; raises OSError."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind(tuple(place))
    except OSError:
        sock.close()
        raise
    sock.settimeout(0)
    return sock


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
