"""The client end of the local protocol: matches answers to requests, owns flows and listeners."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from typing import TYPE_CHECKING, Final

from nodes import local
from nodes.channel import Channel
from nodes.datagramport import DatagramPort, Received
from nodes.errors import (
    NodeAbsent,
    NodeError,
    NodeLost,
    PortTaken,
    StreamRefused,
    StreamReset,
    TunnelRefused,
    Unreachable,
)
from nodes.streams import Closed, Descriptor, Flow, Incoming, Listener, Opened
from nodes.tunnelport import Tunnel
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

_MAX_QUEUE: Final = 16 << 20  # bytes for a node that does not read; never seen in health
_WELCOME_TIMEOUT: Final = 5.0
_CANCEL_TIMEOUT: Final = 5.0  # s; the node answers at once

_Answer = local.Done | Opened | local.Bound | local.Vouched | local.TunnelStats
_Told = local.Failed | local.Done | local.Opened | local.Bound | local.Vouched | local.TunnelStats


async def dial(path: Path | str) -> NodeConnection:
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
    return NodeConnection(sock, str(path))


class _Borrowed:
    """A descriptor that stays the caller's."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        pass


class NodeConnection:
    """The client end of the local protocol: matches answers, owns flows and listeners."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.lost = asyncio.Event()
        self._path = path
        self._reason = ""
        self._ids = itertools.count(1)
        self._welcome: asyncio.Future[local.Welcome] = asyncio.get_running_loop().create_future()
        self._requests: dict[int, asyncio.Future[_Answer]] = {}
        self._listeners: dict[int, Listener] = {}
        self._flows: dict[int, Flow] = {}
        self._ports: dict[int, DatagramPort] = {}
        self._tunnel: Tunnel | None = None
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

    async def listen(self, port: int, allow: Collection[str] | None = None) -> Listener:
        if port in self._listeners:
            raise PortTaken(f"this app already listens on port {port} of the node at {self._path}")
        listener = self._listeners[port] = Listener(self, port)
        try:
            number = next(self._ids)
            keys = None if allow is None else list(allow)
            await self._request(number, local.Listen(number, port, keys))
        except BaseException:
            self._listeners.pop(port, None)
            raise
        return listener

    async def unlisten(self, port: int) -> None:
        listener = self._listeners.pop(port, None)
        if listener is not None:
            for incoming in listener.stop():
                await incoming.reset()
            await self._undo(local.Unlisten(port, self.new_id()))

    async def bind(self, port: int, allow: Collection[str] | None) -> DatagramPort:
        number = next(self._ids)
        keys = None if allow is None else list(allow)
        answer = await self._request(number, local.Bind(number, port, keys))
        if not isinstance(answer, local.Bound):
            raise NodeError(f"the node at {self._path} answered BIND with something else")
        return self._ports[answer.port]

    async def unbind(self, port: int) -> None:
        if self._ports.pop(port, None) is not None:
            await self._undo(local.Unbind(port, self.new_id()))

    async def _undo(self, message: local.Unlisten | local.Unbind) -> None:
        """Returns when the port is free; with the node all of them are."""
        if not self.lost.is_set() and message.id is not None:
            with contextlib.suppress(NodeLost):
                await self._request(message.id, message)

    async def open(
        self, target: str, port: int, greeting: bytes, patience: float, early: bytes = b""
    ) -> Opened:
        number = next(self._ids)
        message = local.Open(number, target, port, greeting, patience, early)
        answer = await self._request(number, message)
        if not isinstance(answer, Opened):
            raise NodeError(f"the node at {self._path} answered OPEN with something else")
        return answer

    async def connect(self, sock: Descriptor, message: local.Connect) -> Flow:
        number, loop = message.id, asyncio.get_running_loop()
        future: asyncio.Future[_Answer]
        future = self._requests[number] = loop.create_future()
        try:
            await self.send(message, _Borrowed(sock.fileno()))
            answer = await future
        except asyncio.CancelledError:
            await self._give_up(sock, number, future)
            raise
        finally:
            self._requests.pop(number, None)
        if not isinstance(answer, Opened):
            raise NodeError(f"the node at {self._path} answered CONNECT with something else")
        sock.close()
        return answer.flow

    async def _give_up(
        self, sock: Descriptor, number: int, future: asyncio.Future[_Answer]
    ) -> None:
        """Until the node has said whether it let go of the descriptor."""
        if future.cancelled():
            future = self._requests[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT):
                await self.send(local.Cancel(number))
                answer = await future
        except (NodeError, TimeoutError):
            return
        sock.close()  # it was handed over a moment ago
        if isinstance(answer, Opened):
            await answer.reset()

    def new_id(self) -> int:
        """A number for a request."""
        return next(self._ids)

    async def vouch(self, port: int, statement: bytes) -> bytes:
        number = next(self._ids)
        answer = await self._request(number, local.Vouch(number, port, statement))
        if not isinstance(answer, local.Vouched):
            raise NodeError(f"the node at {self._path} answered VOUCH with something else")
        return answer.signature

    async def tunnel(self, descriptor: int, name: str, mtu: int, offload: local.Offload) -> Tunnel:
        number = next(self._ids)
        message = local.Tunnel(number, name, mtu, offload)
        tunnel = self._tunnel = Tunnel(self, name)
        try:
            await self._request(number, message, _Borrowed(descriptor))
        except BaseException:
            self._tunnel = None
            raise
        return tunnel

    async def set_peer(self, target: str, prefixes: Sequence[str]) -> None:
        number = next(self._ids)
        await self._request(number, local.Peer(number, target, list(prefixes)))

    async def tunnel_stats(self) -> local.TunnelStats:
        number = next(self._ids)
        answer = await self._request(number, local.AskTunnel(number))
        if not isinstance(answer, local.TunnelStats):
            raise NodeError(f"the node at {self._path} answered TUNNEL_STATS with something else")
        return answer

    async def untunnel(self) -> None:
        self._tunnel = None
        if not self.lost.is_set():
            number = next(self._ids)
            await self._request(number, local.Untunnel(number))

    def raise_if_lost(self) -> None:
        if self.lost.is_set():
            raise self._lost_error()

    def close(self) -> None:
        self._channel.close()
        self._on_lost("this app closed it")

    async def _request(
        self, number: int, message: local.FromApp, descriptor: Descriptor | None = None
    ) -> _Answer:
        future: asyncio.Future[_Answer]
        future = self._requests[number] = asyncio.get_running_loop().create_future()
        try:
            await self.send(message, descriptor)
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
            case local.Incoming():
                self._offer(message)
            case local.Ended() | local.Closed():
                self._end(message)
            case local.TunnelEvent():
                if self._tunnel is not None:
                    self._tunnel.put(message)
            case local.Datagram(port, origin, source, data):
                if port in self._ports:
                    self._ports[port].put(Received(data, origin, source))
            case _:
                self._answer(message)

    def _answer(self, message: _Told) -> None:
        future = self._requests.get(message.id)
        if future is None or future.done():
            self._unwanted(message)
            return
        match message:
            case local.Failed():
                future.set_exception(_error(message))
            case local.Opened():
                # With the flow, which may be over before the caller wakes up.
                future.set_result(Opened(self, self._flow(message.stream), message))
            case local.Bound(_, port):
                self._ports[port] = DatagramPort(self, port)
                future.set_result(message)
            case _:
                future.set_result(message)

    def _unwanted(self, message: _Told) -> None:
        """The caller stopped waiting."""
        match message:
            case local.Opened(_, stream):
                self._flow(stream)
                self._channel.send(local.encode(local.Reset(stream)))
            case local.Bound(_, port):
                self._channel.send(local.encode(local.Unbind(port)))
            case _:
                pass

    def _end(self, message: local.Ended | local.Closed) -> None:
        match message:
            case local.Ended(stream):
                if stream in self._flows:
                    self._flows[stream].mark_ended()
            case local.Closed(stream, code, bytes_in, bytes_out):
                flow = self._flows.pop(stream, None)
                if flow is not None:
                    flow.mark_closed(Closed(Code.of(code), bytes_in, bytes_out))

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
        for bound in self._ports.values():
            bound.put(None)
        if self._tunnel is not None:
            self._tunnel.put(None)
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
    if code is Code.NO_TUNNEL:
        return TunnelRefused(message.message)
    return StreamReset(code, message.message)
