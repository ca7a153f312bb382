"""The near half of the SOCKS pair: speaks SOCKS5 with clients, hands their sockets to the node."""

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from apps.socks.messages import Destination, encode, read_refusal
from apps.socks.protocol import ConnectRequested, Failed, Handshake, Reply, Send
from apps.socks.upkeep import Notes
from nodes.client import Code, Node, NodeError, Opened, StreamRefused, StreamReset, Unreachable

HANDSHAKE_TIMEOUT = 10.0  # seconds for everything up to the CONNECT
OPEN_TIMEOUT = (
    25.0  # seconds for the exit's answer; it has its own, shorter time-out for the target
)
SETTLING = 5.0  # seconds after meeting the node in which a missing route is waited for
FAREWELL = 1.0  # seconds in which a refused client may read why


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line."""

    node: str
    exit: str  # node name or Z85 key
    port: int
    listen: tuple[str, int]
    users: Mapping[bytes, bytes] | None  # None: no password is asked for
    idle: float  # seconds
    max_connections: int


class Gateway:
    """Speaks SOCKS5 with clients and hands their sockets to the node."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._node: Node | None = None  # None while there is none
        self._settled_at = 0.0  # loop time; until then a route may still be on its way
        self._connections = 0
        self._note = Notes()

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
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                        continue  # a client that was gone before it was taken
                    self._note(f"cannot take clients: {error.strerror}")
                    await asyncio.sleep(0.2)
                    continue
                if self._connections >= self._options.max_connections:
                    self._note(f"more than {self._connections} connections: client turned away")
                    client.close()
                    continue
                self._connections += 1
                tasks.create_task(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        """See one client through, from its first byte to the end of its stream."""
        try:
            client.settimeout(0)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handshake = Handshake(self._options.users)
            target = await self._handshake(client, handshake)
            if target is not None:
                await self._connect(client, handshake, target)
        except (OSError, TimeoutError, NodeError):
            pass  # the client is gone or asleep, or the node went away: nobody is left to tell
        finally:
            client.close()
            self._connections -= 1

    async def _handshake(
        self, client: socket.socket, handshake: Handshake
    ) -> ConnectRequested | None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            # Reads no more than the handshake needs: what follows is the stream's, and stays in the
            # kernel for the node to read.
            while data := await loop.sock_recv(client, handshake.wanted):
                for event in handshake.receive(data):
                    match event:
                        case Send(answer):
                            await loop.sock_sendall(client, answer)
                        case ConnectRequested():
                            return event
                        case Failed(reason):
                            self._note(f"client refused: {reason}")
                            await _farewell(client)
                            return None
        return None

    async def _connect(
        self, client: socket.socket, handshake: Handshake, target: ConnectRequested
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            opened = await self._open(target)
        except NodeError as error:
            code, reason = _explain(error)
            self._note(f"{target.host}:{target.port}: {reason}")
            await loop.sock_sendall(client, handshake.answer(code))
            await _farewell(client)
            return
        try:
            await loop.sock_sendall(client, handshake.answer(Reply.SUCCEEDED))
            # From now on, whoever holds the socket and dies resets it; the node clears this before
            # an orderly end.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            flow = await opened.attach(client, idle=self._options.idle)
        except OSError:
            await opened.reset()
            raise
        await flow.closed()

    async def _open(self, target: ConnectRequested) -> Opened:
        loop = asyncio.get_running_loop()
        greeting = encode(Destination(target.host, target.port))
        while True:
            node = self._node
            if node is None:
                raise NodeError(f"node {self._options.node!r} is not there")
            try:
                return await node.open(
                    self._options.exit, self._options.port, greeting, OPEN_TIMEOUT
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
    client.shutdown(socket.SHUT_WR)
    left = 64 * 1024
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL):
            while left > 0 and (data := await loop.sock_recv(client, left)):
                left -= len(data)
