"""UDP ASSOCIATE at the near side (RFC 1928 section 7): a port for one client's datagrams.

It lives as long as the client's TCP connection and the stream to the exit. Datagrams count only from the
address of the TCP peer, and from one port of it: that of the first one, or the one the client named.
Fragments are dropped, as all that is too large or too fast is.
"""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from apps.socks.choosing import Exit
from apps.socks.messages import Associated, Association, encode, read_associated
from apps.socks.packets import NUMBER
from apps.socks.protocol import AssociateRequested
from apps.socks.upkeep import Notes, receive_from
from nodes.client import DatagramPort, Node, NodeError, Received, Stream

MAX_ASSOCIATIONS: Final = 256
LARGEST: Final = 65_535
OPEN_TIMEOUT: Final = 10.0  # s
_HEAD: Final = 3  # bytes: RSV and FRAG, which must be zero
_NOT_FRAGMENTED: Final = bytes(_HEAD)

Address = tuple[str, int]


class TooMany(Exception):
    """There are `MAX_ASSOCIATIONS`."""


class Postbox:
    """The datagram port at the node that all associations share, as long as the node is there."""

    def __init__(self) -> None:
        self._port: DatagramPort | None = None
        self._bound: asyncio.Lock = asyncio.Lock()
        self._node: Node | None = None
        self._takers: dict[int, Callable[[Received], None]] = {}
        self._work: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._takers)

    async def at(self, node: Node) -> DatagramPort:
        """The port at this node; raises NodeError."""
        async with self._bound:
            if self._port is None or self._node is not node:
                self._port, self._node = await node.bind(), node
                self._work = asyncio.create_task(self._deliver(self._port))
            return self._port

    def take(self, number: int, taker: Callable[[Received], None]) -> None:
        if len(self._takers) >= MAX_ASSOCIATIONS:
            raise TooMany
        self._takers[number] = taker

    def leave(self, number: int) -> None:
        self._takers.pop(number, None)

    def close(self) -> None:
        if self._work is not None:
            self._work.cancel()

    async def _deliver(self, port: DatagramPort) -> None:
        """Until the node is lost."""
        with contextlib.suppress(NodeError):
            async for came in port:
                if len(came.data) > NUMBER.size:
                    (number,) = NUMBER.unpack_from(came.data)
                    taker = self._takers.get(number)
                    if taker is not None:
                        taker(came)


class Associate:
    """One association: `open`, `run`, and at last `close` it. Raises TooMany, OSError."""

    def __init__(
        self, client: socket.socket, wish: AssociateRequested, postbox: Postbox, note: Notes
    ) -> None:
        self._client = client
        self._postbox = postbox
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._number = secrets.randbits(32)
        self._peer: str = client.getpeername()[0]
        self._from = wish.port or None  # the client's port, when it is known
        self._sock = _bound_beside(client)
        self._talker: tuple[str | int, ...] | None = None
        self._port: DatagramPort
        self._far: Exit
        self._far_port = 0
        self._far_key = ""  # who answered first
        try:
            postbox.take(self._number, self._homeward)
        except TooMany:
            self._sock.close()
            raise

    @property
    def bound(self) -> Address:
        """Where the client is to send."""
        host, port = self._sock.getsockname()[:2]
        return host, port

    async def open(self, node: Node, which: Exit) -> Stream:
        """Ask the exit; the stream is the life of it. Raises NodeError."""
        self._port = await self._postbox.at(node)
        greeting = encode(Association(self._number, self._port.port))
        opened = await node.open(which.target, which.port, greeting, OPEN_TIMEOUT)
        answer: Associated | None = read_associated(opened.reply)
        if answer is None:
            await opened.reset()
            raise NodeError(f"exit {which.target!r} carries no datagrams")
        self._far, self._far_port = which, answer.port
        return await opened.stream()

    async def run(self, stream: Stream) -> None:
        """Until the client, the exit or the node ends it."""
        ends = [
            asyncio.create_task(work)
            for work in (self._outward(), self._until_client_ends(), _until_over(stream))
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    def close(self) -> None:
        self._postbox.leave(self._number)
        self._sock.close()

    async def _outward(self) -> None:
        head = NUMBER.pack(self._number)
        while True:
            try:
                data, talker = await receive_from(self._sock, LARGEST)
            except OSError:  # of an answer that could not be delivered
                continue
            if not data.startswith(_NOT_FRAGMENTED) or not self._is_client(talker):
                continue
            try:
                await self._port.send_to(self._far.target, self._far_port, head + data[_HEAD:])
            except NodeError as error:
                self._note(f"datagram dropped: {error}")
            await asyncio.sleep(0)  # a flood leaves nobody else waiting

    def _is_client(self, talker: tuple[str | int, ...]) -> bool:
        host, port = talker[:2]
        if ip_address(str(host)) != ip_address(self._peer):
            return False
        if self._from is None:
            self._from = int(port)
        if port != self._from:
            return False
        self._talker = talker
        return True

    def _homeward(self, came: Received) -> None:
        if self._talker is None or came.port != self._far_port:
            return  # nothing was sent yet, so there are no answers
        self._far_key = self._far_key or came.origin
        if came.origin != self._far_key:
            return
        with contextlib.suppress(OSError):  # no room, or nobody is there any more
            self._sock.sendto(_NOT_FRAGMENTED + came.data[NUMBER.size :], self._talker)

    async def _until_client_ends(self) -> None:
        """What it says on the connection means nothing; its end does."""
        try:
            while await self._loop.sock_recv(self._client, LARGEST):
                pass
        except OSError:
            pass


async def _until_over(stream: Stream) -> None:
    """The exit says nothing on it, and ends it."""
    try:
        while await stream.read():
            pass
    except NodeError:
        pass


def _bound_beside(client: socket.socket) -> socket.socket:
    """A socket at the address at which the client reached us; raises OSError."""
    sock = socket.socket(client.family, socket.SOCK_DGRAM)
    try:
        sock.settimeout(0)
        sock.bind((client.getsockname()[0], 0))
    except OSError:
        sock.close()
        raise
    return sock
