"""Clients that have not said yet what they want: their handshakes, in callbacks and without a task each."""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from apps.socks.httpconnect import HttpConnect
from apps.socks.protocol import (
    AssociateRequested,
    ConnectRequested,
    Event,
    Failed,
    Handshake,
    Reply,
    Send,
)

PATIENCE: Final = 10.0  # s for everything up to the request
MAX_VISITORS: Final = 1024
READ: Final = 16 * 1024  # bytes; less than what may be sent ahead of the reply
SWEEP: Final = 1.0  # s


class Front(Protocol):
    """What was spoken with a client, and how it is answered."""

    @property
    def over(self) -> bool: ...

    @property
    def surplus(self) -> bytes: ...

    @property
    def success(self) -> bytes: ...

    def receive(self, data: bytes) -> list[Event]: ...

    def answer(self, code: Reply, bound: tuple[str, int] | None = None) -> bytes: ...


Wish = ConnectRequested | AssociateRequested
Asked = Callable[[socket.socket, Front, Wish], None]


class Visitors:
    """All of them. `asked` and `refused` get the socket, with nothing that watches it."""

    def __init__(
        self,
        users: Mapping[bytes, bytes] | None,
        asked: Asked,
        refused: Callable[[socket.socket, str], None],
    ) -> None:
        self._users = users
        self._asked = asked
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._here: OrderedDict[Visitor, float] = OrderedDict()  # when it came; the oldest first

    def __len__(self) -> int:
        return len(self._here)

    def welcome(self, client: socket.socket) -> None:
        """Begin with a client; of too many, the one that has been here the longest is cut."""
        if len(self._here) >= MAX_VISITORS:
            next(iter(self._here)).cut()
        client.settimeout(0)
        visitor = Visitor(self, client, self._loop)
        self._here[visitor] = self._loop.time()
        visitor.read()  # most have spoken by now

    async def sweep(self) -> None:
        """Cut those that have been here for too long, for ever."""
        while True:
            await asyncio.sleep(SWEEP)
            before = self._loop.time() - PATIENCE
            while self._here and next(iter(self._here.values())) < before:
                next(iter(self._here)).cut()

    def close(self) -> None:
        for visitor in list(self._here):
            visitor.cut()

    def front(self, first: int) -> Front:
        """Choose by the first byte: methods of HTTP are in capitals."""
        return HttpConnect(self._users) if 0x41 <= first <= 0x5A else Handshake(self._users)

    def leave(self, visitor: "Visitor") -> None:
        self._here.pop(visitor, None)

    def done(self, visitor: "Visitor", event: Event) -> None:
        """It has said what it wants, or nothing that makes sense."""
        match event:
            case ConnectRequested() | AssociateRequested() if visitor.front is not None:
                self._asked(visitor.sock, visitor.front, event)
            case Failed(reason):
                self._refused(visitor.sock, reason)
            case _:
                visitor.sock.close()


class Visitor:
    """One client, until it has said what it wants."""

    __slots__ = ("_fd", "_host", "_loop", "_watching", "front", "sock")

    def __init__(
        self, host: Visitors, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.sock = sock
        self.front: Front | None = None  # None until the first byte
        self._host = host
        self._loop = loop
        self._fd = sock.fileno()
        self._watching = False

    def read(self) -> None:
        """Take what came, and answer."""
        try:
            data = self.sock.recv(READ)
        except (BlockingIOError, InterruptedError):
            self._watch()
            return
        except OSError:
            data = b""
        if not data:
            self.cut()
            return
        if self.front is None:
            self.front = self._host.front(data[0])
        for event in self.front.receive(data):
            if not isinstance(event, Send):
                self._unwatch()
                self._host.leave(self)
                self._host.done(self, event)
                return
            # A socket that nothing was written to yet takes these few bytes, or is no use.
            try:
                self.sock.send(event.data)
            except OSError:
                self.cut()
                return
        self._watch()

    def cut(self) -> None:
        self._unwatch()
        self._host.leave(self)
        self.sock.close()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.add_reader(self._fd, self.read)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._fd)
