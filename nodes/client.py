"""What apps use: streams through the mesh by way of the local node.

    async with connect_node(run_dir / "node-alpha.sock") as node:
        stream = await node.open_stream("beta", 80)
        await stream.write(b"hello")
        print(await stream.read())

An app that is only a gateway hands its TCP socket over with `attach` and is out of the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from nodes import local
from nodes.channel import Channel
from nodes.errors import (
    NodeAbsent,
    NodeError,
    NodeLost,
    PortTaken,
    StreamRefused,
    StreamReset,
    Unreachable,
)
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = [
    "Closed",
    "Code",
    "Flow",
    "Incoming",
    "Listener",
    "Node",
    "NodeAbsent",
    "NodeError",
    "NodeLost",
    "Opened",
    "PortTaken",
    "Stream",
    "StreamRefused",
    "StreamReset",
    "Unreachable",
    "connect_node",
]

_MAX_QUEUE: Final = 16 << 20  # bytes for a node that does not read; never seen in health
_WELCOME_TIMEOUT: Final = 5.0


class Closed(NamedTuple):
    """How a stream ended: bytes_in came from the far end, bytes_out went there."""

    code: Code
    bytes_in: int
    bytes_out: int


class Descriptor(Protocol):
    """A socket, or whatever else has a descriptor to give away."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Flow:
    """A stream whose bytes the node pumps."""

    def __init__(self, connection: _Connection, handle: int) -> None:
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

    def __init__(self, connection: _Connection, flow: Flow, message: local.Opened) -> None:
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

    async def reset(self) -> None:
        await self._flow.reset()


class Incoming:
    """A stream from another node to a port this app listens on. Answer it within 30 s."""

    def __init__(self, connection: _Connection, flow: Flow, message: local.Incoming) -> None:
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


class Listener:
    """Incoming streams of one port. Iterating raises NodeLost when the node went away."""

    def __init__(self, connection: _Connection, port: int) -> None:
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
        """Stop listening; the iteration ends."""
        await self._connection.unlisten(self.port)

    def put(self, incoming: Incoming | None) -> None:
        self._queue.put_nowait(incoming)


class Node:
    """An app's connection to its node: `key` and `name` are the node's."""

    def __init__(self, connection: _Connection, welcome: local.Welcome) -> None:
        self.key = welcome.key
        self.name = welcome.name
        self.lost = connection.lost  # an event, set when the node went away
        self._connection = connection

    async def listen(self, port: int) -> Listener:
        """Take incoming streams for `port` of this node; raises PortTaken."""
        return await self._connection.listen(port)

    async def open(
        self,
        target: str,
        port: int,
        greeting: bytes = b"",
        timeout: float = 10.0,
    ) -> Opened:
        """Open a stream to `port` of the node `target` (its name or Z85 key).

        Raises StreamRefused (the far app's own code and reply), StreamReset (nobody listens, too
        many streams, …), Unreachable (no such node, no route, no answer in time), NodeLost.
        """
        return await self._connection.open(target, port, greeting, timeout)

    async def open_stream(
        self,
        target: str,
        port: int,
        greeting: bytes = b"",
        timeout: float = 10.0,
    ) -> Stream:
        """As `open`, and this process reads and writes the bytes."""
        return await (await self.open(target, port, greeting, timeout)).stream()


@asynccontextmanager
async def connect_node(path: Path | str, name: str = "") -> AsyncIterator[Node]:
    """Connect to the node whose local socket is `path`; `name` tells it who we are.

    Raises NodeAbsent when no node answers there.
    """
    connection = await _dial(path)
    try:
        yield Node(connection, await connection.hello(name))
    finally:
        connection.close()


async def _dial(path: Path | str) -> _Connection:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(0)
    try:
        await asyncio.get_running_loop().sock_connect(sock, str(path))
    except OSError as error:
        sock.close()
        raise NodeAbsent(
            f"no node answers at {path} ({error.strerror or error}): start it, or name another one"
        ) from None
    except BaseException:
        sock.close()
        raise
    return _Connection(sock, str(path))


class _Connection:
    """The client end of the local protocol: matches answers, owns flows and listeners."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.lost = asyncio.Event()
        self._path = path
        self._reason = ""
        self._ids = itertools.count(1)
        self._welcome: asyncio.Future[local.Welcome] = asyncio.get_running_loop().create_future()
        self._requests: dict[int, asyncio.Future[local.Done | local.Opened]] = {}
        self._listeners: dict[int, Listener] = {}
        self._flows: dict[int, Flow] = {}
        self._channel = Channel(sock, self._receive, self._on_lost, max_queue=_MAX_QUEUE)

    async def hello(self, name: str) -> local.Welcome:
        await self.send(local.Hello(local.VERSION, name))
        try:
            async with asyncio.timeout(_WELCOME_TIMEOUT):
                return await self._welcome
        except TimeoutError:
            raise NodeAbsent(
                f"the node at {self._path} did not answer within {_WELCOME_TIMEOUT:g} s"
            ) from None

    async def send(self, message: local.FromApp, sock: Descriptor | None = None) -> None:
        """Send a message and with it the descriptor of `sock`, which is closed here."""
        descriptor = -1
        if sock is not None:
            descriptor = os.dup(sock.fileno())
            sock.close()
        if not self.lost.is_set():
            self._channel.send(local.encode(message), descriptor)
            await self._channel.drain()
        elif descriptor >= 0:
            os.close(descriptor)
        self.raise_if_lost()

    async def listen(self, port: int) -> Listener:
        if port in self._listeners:
            raise PortTaken(f"this app already listens on port {port} of the node at {self._path}")
        listener = self._listeners[port] = Listener(self, port)
        try:
            number = next(self._ids)
            await self._request(number, local.Listen(number, port))
        except BaseException:
            self._listeners.pop(port, None)
            raise
        return listener

    async def unlisten(self, port: int) -> None:
        listener = self._listeners.pop(port, None)
        if listener is not None:
            listener.put(None)
            if not self.lost.is_set():
                await self.send(local.Unlisten(port))

    async def open(self, target: str, port: int, greeting: bytes, patience: float) -> Opened:
        number = next(self._ids)
        answer = await self._request(number, local.Open(number, target, port, greeting, patience))
        if not isinstance(answer, local.Opened):
            raise NodeError(f"the node at {self._path} answered OPEN with DONE")
        return Opened(self, self._flow(answer.stream), answer)

    def raise_if_lost(self) -> None:
        if self.lost.is_set():
            raise self._lost_error()

    def close(self) -> None:
        self._channel.close()
        self._on_lost("this app closed it")

    async def _request(self, number: int, message: local.FromApp) -> local.Done | local.Opened:
        future: asyncio.Future[local.Done | local.Opened]
        future = self._requests[number] = asyncio.get_running_loop().create_future()
        try:
            await self.send(message)
            return await future
        finally:
            self._requests.pop(number, None)

    def _flow(self, handle: int) -> Flow:
        """The flow of a handle; made when the node first names it, so that no message is early."""
        if handle not in self._flows:
            self._flows[handle] = Flow(self, handle)
        return self._flows[handle]

    def _receive(self, body: bytes) -> None:
        message = local.decode_from_node(body)
        match message:
            case local.Welcome():
                if not self._welcome.done():
                    self._welcome.set_result(message)
            case local.Done() | local.Opened() | local.Failed():
                self._answer(message)
            case local.Incoming():
                self._offer(message)
            case local.Ended(stream):
                if stream in self._flows:
                    self._flows[stream].mark_ended()
            case local.Closed(stream, code, bytes_in, bytes_out):
                flow = self._flows.pop(stream, None)
                if flow is not None:
                    flow.mark_closed(Closed(Code.of(code), bytes_in, bytes_out))

    def _answer(self, message: local.Done | local.Opened | local.Failed) -> None:
        future = self._requests.get(message.id)
        wanted = future is not None and not future.done()
        if isinstance(message, local.Opened):
            self._flow(message.stream)
            if not wanted:  # the caller stopped waiting
                self._channel.send(local.encode(local.Reset(message.stream)))
        if future is None or not wanted:
            return
        if isinstance(message, local.Failed):
            future.set_exception(_error(message))
        else:
            future.set_result(message)

    def _offer(self, message: local.Incoming) -> None:
        listener = self._listeners.get(message.port)
        if listener is None:  # closed a moment ago
            self._channel.send(local.encode(local.Reset(message.stream)))
            return
        listener.put(Incoming(self, self._flow(message.stream), message))

    def _on_lost(self, reason: str) -> None:
        if self.lost.is_set():
            return
        self._reason = reason
        self.lost.set()
        for future in self._requests.values():
            if not future.done():
                future.set_exception(self._lost_error())
        if not self._welcome.done():
            self._welcome.set_exception(self._lost_error())
            self._welcome.exception()  # it may be that nobody waits for it any more
        for listener in self._listeners.values():
            listener.put(None)
        for flow in self._flows.values():
            flow.mark_closed(Closed(Code.LINK_LOST, 0, 0))
        self._flows.clear()

    def _lost_error(self) -> NodeLost:
        return NodeLost(f"the connection to the node at {self._path} ended: {self._reason}")


def _error(message: local.Failed) -> NodeError:
    code = Code.of(message.code)
    if code is Code.REFUSED:
        return StreamRefused(message.refusal, message.reply)
    if code in {Code.NO_ROUTE, Code.TIMEOUT, Code.LINK_LOST}:
        return Unreachable(message.message, code)
    if code is Code.PORT_TAKEN:
        return PortTaken(message.message)
    return StreamReset(code, message.message)


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    return ours, theirs
