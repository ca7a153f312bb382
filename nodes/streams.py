"""What an app holds: streams, flows whose bytes the node pumps, listeners and what they bring."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final, NamedTuple, Protocol, Self

from nodes import local
from nodes.errors import NodeLost, StreamReset
from nodes.wire import Code

_RESET_TIMEOUT: Final = 5.0  # s for the node to carry a reset out


class Descriptor(Protocol):
    """A socket, or whatever else has a descriptor to give away."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Connection(Protocol):
    """The connection to the node that all of them belong to."""

    async def send(self, message: local.FromApp, sock: Descriptor | None = None) -> None:
        """Send a message and with it the descriptor of `sock`, which is closed here."""
        ...

    async def unlisten(self, port: int) -> None: ...

    def raise_if_lost(self) -> None: ...


class Closed(NamedTuple):
    """How a stream ended: bytes_in came from the far end, bytes_out went there."""

    code: Code
    bytes_in: int
    bytes_out: int


class Flow:
    """A stream whose bytes the node pumps."""

    def __init__(self, connection: Connection, handle: int) -> None:
        self._connection = connection
        self._handle = handle
        self._ended = asyncio.Event()
        self._closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    async def closed(self) -> Closed:
        """Wait for the end of the stream. A node that went away gives Code.LINK_LOST."""
        return await asyncio.shield(self._closed)

    async def ended(self) -> None:
        """Wait until the far end has finished sending, or the stream is over."""
        await self._ended.wait()

    @property
    def result(self) -> Closed | None:
        """How it ended; None while it lasts."""
        return self._closed.result() if self._closed.done() else None

    async def reset(self) -> None:
        """Cut the stream: the descriptor at the node and the far end both see a reset."""
        if not self._closed.done():
            with contextlib.suppress(NodeLost):
                await self._connection.send(local.Reset(self._handle))

    def mark_ended(self) -> None:
        self._ended.set()

    def mark_closed(self, result: Closed) -> None:
        self._ended.set()
        if not self._closed.done():
            self._closed.set_result(result)


class Stream:
    """Bytes both ways; this process reads and writes them through one end of a socket pair."""

    def __init__(self, sock: socket.socket, flow: Flow, reply: bytes = b"") -> None:
        self.reply = reply
        self.flow = flow
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self, size: int = 65536) -> bytes:
        """Up to `size` bytes, b"" at the end; raises StreamReset."""
        try:
            data = await self._loop.sock_recv(self._sock, size)
        except OSError:
            data = b""
        if not data:
            await self.flow.ended()
            result = self.flow.result
            if result is not None and result.code is not Code.DONE:
                raise StreamReset(result.code)
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when the node has room for the bytes; waits while the far reader is slow."""
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError:
            raise StreamReset((await self.flow.closed()).code) from None

    def write_eof(self) -> None:
        """Nothing more will be written; reading goes on."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    async def reset(self) -> None:
        """Cut the stream at both ends."""
        await self.flow.reset()
        # Closed earlier, it could look to the node like an orderly end, which it may see first.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RESET_TIMEOUT):
                await self.flow.closed()
        self._sock.close()

    async def aclose(self) -> None:
        """Finish writing; a far end that still sends will see a reset."""
        self._sock.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Opened:
    """A stream the far app accepted. Give it a descriptor within 30 s."""

    def __init__(self, connection: Connection, flow: Flow, message: local.Opened) -> None:
        self.reply = message.reply
        self._connection = connection
        self._flow = flow
        self._handle = message.stream

    async def attach(self, sock: Descriptor, *, idle: float = 0, early: bytes = b"") -> Flow:
        """Hand a connected stream socket to the node and close it here.

        idle: seconds without any byte after which the stream is reset, 0 for never.
        early: bytes (at most 64 KiB) already read from `sock`, sent before the rest.
        """
        await self._connection.send(local.Attach(self._handle, idle, early), sock)
        return self._flow

    async def stream(self) -> Stream:
        """Make it a Stream that this process reads and writes."""
        ours, theirs = _socket_pair()
        return Stream(ours, await self.attach(theirs), self.reply)

    @property
    def flow(self) -> Flow:
        return self._flow

    async def reset(self) -> None:
        await self._flow.reset()


class Incoming:
    """A stream from another node to a port this app listens on. Answer it within 30 s."""

    def __init__(self, connection: Connection, flow: Flow, message: local.Incoming) -> None:
        self.origin = message.origin
        self.port = message.port
        self.greeting = message.greeting
        self._connection = connection
        self._flow = flow
        self._handle = message.stream

    async def accept(self, reply: bytes = b"") -> Stream:
        """Take it as a Stream that this process reads and writes."""
        ours, theirs = _socket_pair()
        return Stream(ours, await self.attach(theirs, reply=reply))

    async def attach(
        self, sock: Descriptor, *, reply: bytes = b"", idle: float = 0, early: bytes = b""
    ) -> Flow:
        """Take it, hand a connected stream socket to the node and close that one here."""
        await self._connection.send(local.Accept(self._handle, reply, idle, early), sock)
        return self._flow

    async def refuse(self, code: int, reply: bytes = b"") -> None:
        """Decline; `code` (0..255) and `reply` (at most 4 KiB) are for the far app."""
        await self._connection.send(local.Refuse(self._handle, code, reply))

    async def reset(self) -> None:
        """Neither take it nor say why not."""
        await self._flow.reset()


class Listener:
    """Incoming streams of one port. Iterating raises NodeLost when the node went away."""

    def __init__(self, connection: Connection, port: int) -> None:
        self.port = port
        self._connection = connection
        self._queue: asyncio.Queue[Incoming | None] = asyncio.Queue()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Incoming:
        incoming = await self._queue.get()
        if incoming is None:
            self._queue.put_nowait(None)  # for the next caller
            self._connection.raise_if_lost()
            raise StopAsyncIteration
        return incoming

    async def aclose(self) -> None:
        """Stop listening; the iteration ends, and who waits in it is reset. Then the port is free."""
        await self._connection.unlisten(self.port)

    def stop(self) -> list[Incoming]:
        """End the iteration; returns those whom nobody has taken."""
        waiting = []
        while not self._queue.empty():
            incoming = self._queue.get_nowait()
            if incoming is not None:
                waiting.append(incoming)
        self.put(None)
        return waiting

    def put(self, incoming: Incoming | None) -> None:
        self._queue.put_nowait(incoming)


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    return ours, theirs
