"""One app's connection to the node: holds its streams, listens on its ports, obeys its messages.

When the connection ends, its listeners go and its streams are reset.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from nodes import local, posting
from nodes.channel import Channel
from nodes.engine import NOBODY, TooManyStreams
from nodes.errors import Unreachable
from nodes.local import LocalProtocolError
from nodes.tunneling import Tunneling
from nodes.wire import Code

if TYPE_CHECKING:
    from nodes.lane import Lane
    from nodes.pump import Pump

log = logging.getLogger(__name__)

MAX_LISTENERS: Final = 1024  # of one app
MAX_OPENING: Final = 1024  # streams of one app that are not answered yet
_MAX_QUEUE: Final = 4 << 20  # bytes for an app that does not read


class Host(posting.Host, Protocol):
    """The part of a node that an app's connection belongs to."""

    def vouch(self, port: int, statement: bytes) -> bytes:
        """The node's signature of what an app says that listens on `port`."""
        ...

    def known(self, target: str) -> Lane | None:
        """The way to a node, if there is one already."""
        ...

    def forget(self, app: App) -> None: ...


@dataclass(slots=True)
class _Asked:
    """A stream that was asked for: the request's id, and the descriptor if one came with it."""

    number: int
    sock: socket.socket | None = None
    idle: float = 0.0  # s
    head: bytes = b""
    pump: Pump | None = None  # once the far app was asked
    finding: asyncio.Task[None] | None = None  # looks for a way to its node
    limit: asyncio.TimerHandle | None = None

    def take(self) -> socket.socket | None:
        sock, self.sock = self.sock, None
        return sock

    def discard(self) -> None:
        """Close it without a word: the app has another of the same, and will say why."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class App:
    """One app's connection: Holder of its streams, Listening on its ports."""

    def __init__(self, port: Host, sock: socket.socket) -> None:
        self.name = "?"
        self._port = port
        self._engine = port.engine
        self._greeted = False
        self._handles = itertools.count(1)
        self._pumps: dict[int, Pump] = {}  # answered, or waiting for this app's answer
        self._offered: set[Pump] = set()  # those that wait for this app's answer
        self._opening: dict[Pump, _Asked] = {}  # those that wait for the far app's
        self._asking: dict[int, _Asked] = {}  # by the request's id; not answered yet
        self._ports: set[int] = set()
        self._channel = Channel(sock, self._receive, self._lost, max_queue=_MAX_QUEUE, gather=True)
        self._posting = posting.Posting(port, self._channel, self._failed)
        self._tunneling = Tunneling(port, self._channel, self._failed)

    def close(self) -> None:
        self._channel.close()
        self._lost("the node stops")

    # Holder -------------------------------------------------------------------------------------

    def opened(self, pump: Pump, reply: bytes) -> None:
        asked = self._opening.pop(pump)
        sock = asked.take()
        self._over(asked)
        self._hold(pump)
        self._send(local.Opened(asked.number, pump.handle, reply))
        if sock is not None:
            pump.attach(sock, self._port.loop, idle=asked.idle, head=asked.head, quiet=True)

    def declined(self, pump: Pump, code: int, reply: bytes) -> None:
        asked = self._opening.pop(pump)
        text = "the far app refused the stream"
        self._over(asked)
        self._send(local.Failed(asked.number, Code.REFUSED, text, code, reply))

    def ended(self, pump: Pump) -> None:
        if pump.is_quiet:
            return
        self._send(local.Ended(pump.handle))

    def closed(self, pump: Pump, code: Code) -> None:
        asked = self._opening.pop(pump, None)
        if asked is not None:
            self._over(asked)
            self._send(local.Failed(asked.number, code, f"the stream was not opened: {code.text}"))
            return
        self._offered.discard(pump)
        if self._pumps.pop(pump.handle, None) is not None:
            stream = pump.stream
            self._send(local.Closed(pump.handle, code, stream.received, stream.sent))

    # Listening ----------------------------------------------------------------------------------

    def incoming(self, pump: Pump, origin: str, greeting: bytes) -> None:
        pump.holder = self
        self._hold(pump)
        self._offered.add(pump)
        self._send(local.Incoming(pump.handle, origin, pump.stream.port, greeting))

    # Messages of the app ------------------------------------------------------------------------

    def _receive(self, body: bytes) -> None:
        message = local.decode_from_app(body)
        if isinstance(message, local.Hello) is self._greeted:
            raise LocalProtocolError("HELLO comes first, and once")
        match message:
            case local.Hello(version, app):
                self._hello(version, app)
            case local.Listen() | local.Unlisten() | local.Vouch():
                self._about_port(message)
            case local.Bind() | local.Unbind() | local.Send():
                self._about_datagrams(message)
            case local.Tunnel() | local.Untunnel() | local.Peer() | local.AskTunnel():
                self._tunneling.receive(message)
            case _:
                self._about_streams(message)

    def _about_streams(self, message: local.AboutStreams) -> None:
        match message:
            case local.Open():
                self._open(message, _Asked(message.id))
            case local.Connect():
                self._connect(message)
            case local.Cancel(number):
                if number in self._asking:
                    self._give_up(self._asking[number], Code.RESET, "the app gave it up")
            case local.Attach():
                self._attach(message)
            case local.Accept():
                self._accept(message)
            case local.Refuse():
                self._refuse(message)
            case local.Reset(stream):
                self._reset(stream)

    def _hello(self, version: int, app: str) -> None:
        if version != local.VERSION:
            raise LocalProtocolError(f"version {version}; this node speaks {local.VERSION}")
        self._greeted = True
        self.name = app
        self._send(local.Welcome(local.VERSION, self._engine.key, self._port.name))

    def _about_port(self, message: local.Listen | local.Unlisten | local.Vouch) -> None:
        match message:
            case local.Listen():
                self._listen(message)
            case local.Unlisten(port, number):
                self._unlisten(port)
                self._done(number)
            case local.Vouch():
                self._vouch(message)

    def _about_datagrams(self, message: local.Bind | local.Unbind | local.Send) -> None:
        match message:
            case local.Send():
                self._posting.send(message)
            case local.Bind():
                self._posting.bind(message)
            case local.Unbind(port, number):
                self._posting.unbind(port)
                self._done(number)

    def _listen(self, message: local.Listen) -> None:
        port = message.port
        if port in self._engine.listeners:
            text = f"another app listens on port {port} of node {self._port.name!r}"
            self._send(local.Failed(message.id, Code.PORT_TAKEN, text))
        elif len(self._ports) >= MAX_LISTENERS:
            text = f"an app may listen on {MAX_LISTENERS} ports"
            self._send(local.Failed(message.id, Code.LIMIT, text))
        else:
            self._engine.listeners[port] = self
            if message.allow is not None:
                self._engine.allowed[port] = frozenset(message.allow)
            self._ports.add(port)
            self._send(local.Done(message.id))

    def _unlisten(self, port: int) -> None:
        if port in self._ports:
            self._ports.discard(port)
            del self._engine.listeners[port]
            self._engine.allowed.pop(port, None)

    def _vouch(self, message: local.Vouch) -> None:
        """Only for a port of this app: what others find there is then what was said."""
        if message.port not in self._ports:
            text = f"this app does not listen on port {message.port} of node {self._port.name!r}"
            self._send(local.Failed(message.id, Code.NO_LISTENER, text))
            return
        signature = self._port.vouch(message.port, message.statement)
        self._send(local.Vouched(message.id, signature))

    def _connect(self, message: local.Connect) -> None:
        try:
            sock = _stream_socket(self._channel.take_descriptor())
        except OSError as error:
            text = f"the descriptor is no use: {error}"
            self._send(local.Failed(message.id, Code.TARGET_RESET, text))
            return
        self._open(message, _Asked(message.id, sock, message.idle, message.head))

    def _open(self, message: local.Open | local.Connect, asked: _Asked) -> None:
        if message.id in self._asking:
            asked.discard()
            raise LocalProtocolError(f"request id {message.id} is in use")
        if len(self._asking) >= MAX_OPENING:
            text = f"an app may open {MAX_OPENING} streams at a time"
            asked.discard()
            self._send(local.Failed(message.id, Code.LIMIT, text))
            return
        self._asking[message.id] = asked
        text = f"node {message.target!r} did not answer within {message.timeout:g} s"
        asked.limit = self._port.loop.call_later(
            message.timeout, self._give_up, asked, Code.TIMEOUT, text
        )
        lane = self._port.known(message.target)
        if lane is not None:
            self._ask(lane, message, asked)
        else:
            asked.finding = self._port.tasks.create_task(self._find(message, asked))

    async def _find(self, message: local.Open | local.Connect, asked: _Asked) -> None:
        """Find a way, then ask."""
        try:
            lane = await self._port.route(message.target)
        except Unreachable as error:
            asked.finding = None
            self._give_up(asked, error.code, str(error))
        else:
            asked.finding = None
            self._ask(lane, message, asked)

    def _ask(self, lane: Lane, message: local.Open | local.Connect, asked: _Asked) -> None:
        """Ask the far app; its answer comes to `opened`, `declined` or `closed`."""
        try:
            pump = self._engine.open(lane, message.port, message.greeting, self, message.early)
        except TooManyStreams:
            text = f"there are too many streams to node {message.target!r}"
            self._give_up(asked, Code.LIMIT, text)
            return
        asked.pump = pump
        self._opening[pump] = asked

    def _give_up(self, asked: _Asked, code: Code, text: str) -> None:
        """Before it was answered."""
        self._over(asked)
        if asked.pump is not None:
            del self._opening[asked.pump]
            asked.pump.holder = NOBODY
            asked.pump.reset(code)
        self._send(local.Failed(asked.number, code, text))

    def _over(self, asked: _Asked) -> None:
        """It is answered, or given up."""
        self._asking.pop(asked.number, None)
        if asked.limit is not None:
            asked.limit.cancel()
        if asked.finding is not None:
            asked.finding.cancel()
        asked.discard()

    def _attach(self, message: local.Attach) -> None:
        descriptor = self._channel.take_descriptor()
        pump = self._pumps.get(message.stream)
        if pump is None or pump in self._offered:  # closed a moment ago, or not ours to attach yet
            os.close(descriptor)
            return
        self._hand_over(pump, descriptor, message.idle, message.early)

    def _accept(self, message: local.Accept) -> None:
        descriptor = self._channel.take_descriptor()
        pump = self._pumps.get(message.stream)
        if pump is None or pump not in self._offered:
            os.close(descriptor)
            return
        self._offered.discard(pump)
        self._engine.accept(pump, message.reply)
        self._hand_over(pump, descriptor, message.idle, message.early)

    def _refuse(self, message: local.Refuse) -> None:
        pump = self._pumps.get(message.stream)
        if pump is not None and pump in self._offered:
            self._offered.discard(pump)
            del self._pumps[message.stream]
            self._engine.refuse(pump, message.code, message.reply)

    def _reset(self, handle: int) -> None:
        pump = self._pumps.get(handle)
        if pump is not None:
            pump.reset(Code.RESET)

    def _hand_over(self, pump: Pump, descriptor: int, idle: float, early: bytes) -> None:
        try:
            sock = _stream_socket(descriptor)
        except OSError as error:
            log.warning("%s handed over a descriptor that is no use: %s", self.name, error)
            pump.reset(Code.TARGET_RESET)
            return
        if not pump.is_unattached:
            sock.close()
            raise LocalProtocolError(f"a second descriptor for stream {pump.handle}")
        pump.attach(sock, self._port.loop, idle=idle, early=early)

    # Shared -------------------------------------------------------------------------------------

    def _hold(self, pump: Pump) -> None:
        pump.handle = next(self._handles)
        self._pumps[pump.handle] = pump

    def _done(self, number: int | None) -> None:
        if number is not None:
            self._send(local.Done(number))

    def _failed(self, number: int, code: Code, text: str) -> None:
        self._send(local.Failed(number, code, text))

    def _send(self, message: local.FromNode) -> None:
        self._channel.send(local.encode(message))

    def _lost(self, reason: str) -> None:
        log.info("app %s left: %s", self.name, reason)
        self._port.forget(self)
        self._posting.close()
        self._tunneling.close()
        for port in list(self._ports):
            self._unlisten(port)
        for asked in list(self._asking.values()):
            self._over(asked)
        for pump in [*self._pumps.values(), *self._opening]:
            pump.holder = NOBODY
            pump.reset(Code.APP_GONE)
        self._pumps.clear()
        self._opening.clear()
        self._offered.clear()


def _stream_socket(descriptor: int) -> socket.socket:
    """A socket object for a descriptor of a connected stream socket; raises OSError."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    try:
        if sock.type != socket.SOCK_STREAM:
            raise OSError("it is not a stream socket")
        sock.getpeername()
    except OSError:
        sock.close()
        raise
    return sock
