"""The near half of the SOCKS pair: does for its clients what they ask, by handing their sockets to the node.

Until a client has said what it wants it is a `Visitor` and costs no task. Those are many when somebody
scans or forgets connections: of too many the one that has been silent the longest is cut.
"""

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apps.socks.associations import MAX_ASSOCIATIONS, Associate, Postbox, TooMany
from apps.socks.choosing import Choice, Exit
from apps.socks.messages import Destination, encode, read_refusal
from apps.socks.protocol import AssociateRequested, ConnectRequested, Reply
from apps.socks.reaching import Reaching
from apps.socks.scout import Scout
from apps.socks.upkeep import Notes
from apps.socks.visitors import Front, Visitors, Wish
from nodes.client import Code, Flow, Node, NodeError, StreamRefused, Unreachable

if TYPE_CHECKING:
    from bus import Bus

OPEN_TIMEOUT: Final = 25.0  # s for the exit's answer; it has its own, shorter one for the target
FAREWELL: Final = 1.0  # s in which a refused client may read why
_LINGER: Final = struct.Struct("ii")
ACCEPTS_PER_TURN: Final = 64
FULL_PAUSE: Final = 0.2  # s, when there are no descriptors left


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line."""

    node: str
    exits: tuple[str, ...]  # node names or Z85 keys; none: the fastest of those on offer
    port: int
    listen: tuple[str, int]
    users: Mapping[bytes, bytes] | None  # None: no password is asked for
    idle: float  # s
    max_connections: int


class Gateway:
    """Takes clients, and does for them what they ask."""

    def __init__(self, options: Options, bus: "Bus") -> None:
        self._options = options
        self._connections = 0  # that have asked for something
        self._note = Notes()
        self._visitors = Visitors(options.users, self._asked, self._refused)
        choice = Choice([Exit(name, options.port) for name in options.exits])
        self._reaching = Reaching(options.node, choice, Scout(choice, bus))
        self._postbox = Postbox()
        self._tasks: asyncio.TaskGroup

    async def use(self, node: Node) -> None:
        """Open streams on this node until it is lost."""
        try:
            await self._reaching.use(node)
        finally:
            self._postbox.close()

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

    def _asked(self, client: socket.socket, front: Front, wish: Wish) -> None:
        self._tasks.create_task(self._serve(client, front, wish))

    async def _serve(self, client: socket.socket, front: Front, wish: Wish) -> None:
        """See one client through, from its request to the end of its stream."""
        if self._connections >= self._options.max_connections:
            self._note(f"more than {self._connections} connections: client turned away")
            await self._turn_away(client, front, Reply.GENERAL)
            return
        self._connections += 1
        try:
            if isinstance(wish, ConnectRequested):
                await self._connect(client, front, wish)
            else:
                await self._associate(client, front, wish)
        except (NodeError, TooMany, OSError) as error:
            code, reason = _explain(error)
            self._note(f"{wish.host}:{wish.port}: {reason}")
            await self._turn_away(client, front, code)
        finally:
            client.close()
            self._connections -= 1

    async def _turn_away(self, client: socket.socket, front: Front, code: Reply) -> None:
        if _was_handed_over(client):
            client.close()
            return
        with contextlib.suppress(OSError):  # it is gone: nobody is left to tell
            client.send(front.answer(code))
        await _farewell(client)

    async def _connect(self, client: socket.socket, front: Front, wish: ConnectRequested) -> None:
        """Raises NodeError; the client has not been answered then."""
        greeting = encode(Destination(wish.host, wish.port))

        async def attempt(node: Node, which: Exit) -> Flow:
            return await node.connect(
                client,
                which.target,
                which.port,
                greeting,
                timeout=OPEN_TIMEOUT,
                early=front.surplus,
                head=front.success,
                idle=self._options.idle,
            )

        flow = await self._reaching.reach(attempt, client)
        await flow.closed()

    async def _associate(
        self, client: socket.socket, front: Front, wish: AssociateRequested
    ) -> None:
        """Raises NodeError, TooMany and OSError; the client has not been answered then."""
        association = Associate(client, wish, self._postbox, self._note)
        with contextlib.closing(association):
            async with await self._reaching.reach(association.open) as stream:
                client.send(front.answer(Reply.SUCCEEDED, association.bound))
                await association.run(stream)


def _was_handed_over(client: socket.socket) -> bool:
    """Whether the node has begun with it, and so has answered it.

    A node that dies may not have said so. It sets every connection to reset on close before it writes to it.
    """
    if client.fileno() < 0:
        return True
    option = client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
    return bool(_LINGER.unpack(option)[0])


def _explain(error: Exception) -> tuple[Reply, str]:
    """Translate what the mesh says into what SOCKS can say."""
    match error:
        case StreamRefused():
            refusal = read_refusal(error.reply)
            return refusal.code, refusal.reason
        case Unreachable(code=Code.TIMEOUT):
            return Reply.TIMED_OUT, str(error)
        case Unreachable():
            return Reply.NETWORK_UNREACHABLE, str(error)
        case TooMany():
            return Reply.GENERAL, f"more than {MAX_ASSOCIATIONS} associations for datagrams"
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
