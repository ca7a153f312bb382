"""The near half of the SOCKS pair: does for its clients what they ask, by handing their sockets to the node.

Until a client has said what it wants it is a `Visitor` and costs no task. Those are many when somebody
scans or forgets connections: of too many the one that has been silent the longest is cut.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from apps.socks.messages import Destination, encode, read_refusal
from apps.socks.protocol import ConnectRequested, Reply
from apps.socks.upkeep import Notes
from apps.socks.visitors import Front, Visitors
from nodes.client import Code, Flow, Node, NodeError, StreamRefused, StreamReset, Unreachable

OPEN_TIMEOUT: Final = 25.0  # s for the exit's answer; it has its own, shorter one for the target
SETTLING: Final = 5.0  # s after meeting the node in which a missing route is waited for
FAREWELL: Final = 1.0  # s in which a refused client may read why
ACCEPTS_PER_TURN: Final = 64
FULL_PAUSE: Final = 0.2  # s, when there are no descriptors left


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line."""

    node: str
    exit: str  # node name or Z85 key
    port: int
    listen: tuple[str, int]
    users: Mapping[bytes, bytes] | None  # None: no password is asked for
    idle: float  # s
    max_connections: int


class Gateway:
    """Takes clients, and does for them what they ask."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._node: Node | None = None  # None while there is none
        self._settled_at = 0.0  # loop time; until then a route may still be on its way
        self._connections = 0  # that have asked for something
        self._note = Notes()
        self._visitors = Visitors(options.users, self._asked, self._refused)
        self._tasks: asyncio.TaskGroup

    async def use(self, node: Node) -> None:
        """Open streams on this node until it is lost."""
        self._node = node
        self._settled_at = asyncio.get_running_loop().time() + SETTLING
        try:
            await node.lost.wait()
        finally:
            self._node = None

    async def accept(self, listener: socket.socket) -> None:
        """Take clients for ever."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._visitors.sweep())
                loop.add_reader(listener, self._take, listener)
                await loop.create_future()
        finally:
            loop.remove_reader(listener)
            self._visitors.close()

    def _take(self, listener: socket.socket) -> None:
        """Take those who wait."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    self._note(f"cannot take clients: {error.strerror}")
                    self._rest(listener)
                    return
                continue  # a client that was gone before it was taken
            self._visitors.welcome(client)

    def _rest(self, listener: socket.socket) -> None:
        """Let clients wait in the kernel until some descriptor is free."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(FULL_PAUSE, loop.add_reader, listener, self._take, listener)

    # What visitors say --------------------------------------------------------------------------

    def _refused(self, client: socket.socket, reason: str) -> None:
        self._note(f"client refused: {reason}")
        self._tasks.create_task(_farewell(client))

    def _asked(self, client: socket.socket, front: Front, wish: ConnectRequested) -> None:
        self._tasks.create_task(self._serve(client, front, wish))

    async def _serve(self, client: socket.socket, front: Front, wish: ConnectRequested) -> None:
        """See one client through, from its request to the end of its stream."""
        if self._connections >= self._options.max_connections:
            self._note(f"more than {self._connections} connections: client turned away")
            await self._turn_away(client, front, Reply.GENERAL)
            return
        self._connections += 1
        try:
            flow = await self._connect(client, front, wish)
            await flow.closed()
        except NodeError as error:
            code, reason = _explain(error)
            self._note(f"{wish.host}:{wish.port}: {reason}")
            await self._turn_away(client, front, code)
        finally:
            client.close()
            self._connections -= 1

    async def _turn_away(self, client: socket.socket, front: Front, code: Reply) -> None:
        with contextlib.suppress(OSError):  # it is gone: nobody is left to tell
            client.send(front.answer(code))
        await _farewell(client)

    async def _connect(self, client: socket.socket, front: Front, wish: ConnectRequested) -> Flow:
        """Raises NodeError; the client has not been answered then."""
        loop = asyncio.get_running_loop()
        greeting = encode(Destination(wish.host, wish.port))
        while True:
            node = self._node
            if node is None:
                raise NodeError(f"node {self._options.node!r} is not there")
            try:
                return await node.connect(
                    client,
                    self._options.exit,
                    self._options.port,
                    greeting,
                    timeout=OPEN_TIMEOUT,
                    early=front.surplus,
                    head=front.success,
                    idle=self._options.idle,
                )
            except (Unreachable, StreamReset) as error:
                early = error.code in (Code.NO_ROUTE, Code.NO_LISTENER)
                if not early or loop.time() > self._settled_at:
                    raise
            await asyncio.sleep(0.2)


def _explain(error: NodeError) -> tuple[Reply, str]:
    """Translate what the mesh says into what SOCKS can say."""
    match error:
        case StreamRefused():
            refusal = read_refusal(error.reply)
            return refusal.code, refusal.reason
        case Unreachable(code=Code.TIMEOUT):
            return Reply.TIMED_OUT, str(error)
        case Unreachable():
            return Reply.NETWORK_UNREACHABLE, str(error)
        case _:
            return Reply.GENERAL, str(error)


async def _farewell(client: socket.socket) -> None:
    """Let the client read the last words: closing with unread bytes would reset them away."""
    loop = asyncio.get_running_loop()
    left = 64 * 1024
    with client, contextlib.suppress(OSError, TimeoutError):
        client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(FAREWELL):
            while left > 0 and (data := await loop.sock_recv(client, left)):
                left -= len(data)
