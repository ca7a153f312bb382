"""How data connections come to be: they are dialled, and let in when their first message is proved.

Nobody who connects is worth anything before the proof: there are few of them at a time, each has
3 s and 60 bytes, and beyond the limit the oldest of the same address, then the oldest of all, goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, Protocol

from nodes.errors import CannotListen
from nodes.links import heads, tcp
from nodes.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bus.egress import Egress

PATIENCE: Final = 3.0  # s for the first message
MAX_UNPROVED: Final = 256
MAX_OF_ADDRESS: Final = 32
ACCEPTS_PER_TURN: Final = 32
_BACKLOG: Final = 128
_PAUSE: Final = 0.5  # s without accepting when there are no descriptors left
_NO_MORE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Expecting(Protocol):
    """A link that waits for its data connections."""

    def line_arrived(self, sock: socket.socket, number: int, proof: bytes) -> None:
        """Take `sock` over; raises WireError when it is not proved to be the neighbour's."""
        ...


class _Stranger:
    """A connection that has not proved anything."""

    def __init__(self, entrance: Entrance, sock: socket.socket, address: str) -> None:
        self.sock = sock
        self.address = address
        self._entrance = entrance
        self._said = b""
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(PATIENCE, entrance.refuse, self, "data_late")
        self._loop.add_reader(sock.fileno(), self._read)

    def let_go(self) -> None:
        """Watch it no more."""
        self._timer.cancel()
        self._loop.remove_reader(self.sock.fileno())

    def _read(self) -> None:
        try:
            data = self.sock.recv(heads.FIRST - len(self._said))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._said += data
        magic = self._said[: len(heads.MAGIC)]
        if not data or not heads.MAGIC.startswith(magic):
            self._entrance.refuse(self, "data_nonsense")
        elif len(self._said) == heads.FIRST:
            self._entrance.proved(self, self._said)


class Entrance:
    """Where the neighbours that dialled this node bring their data connections."""

    def __init__(self, host: str, port: int, count: Callable[[str], None], egress: Egress) -> None:
        """Listen; port 0 is any free one. The connections belong to `egress`. Raises CannotListen."""
        self._egress = egress
        self._count = count
        self._expected: dict[bytes, Expecting] = {}
        self._strangers: dict[_Stranger, None] = {}  # the oldest first
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::"  # as libzmq has it: everywhere, IPv4 too
        try:
            with egress:
                self._sock = socket.create_server(
                    (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
                )
        except OSError as error:
            raise CannotListen(
                f"cannot listen for data of neighbours on {host}:{port}: {error.strerror}"
            ) from None
        self._sock.settimeout(0)
        self.port: int = self._sock.getsockname()[1]
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def expect(self, link: bytes, who: Expecting) -> None:
        """Let connections in that say and prove the id `link`."""
        self._expected[link] = who

    def forget(self, link: bytes) -> None:
        self._expected.pop(link, None)

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._sock.close()
        for stranger in list(self._strangers):
            self._drop(stranger)

    def proved(self, stranger: _Stranger, first: bytes) -> None:
        """All of the first message is there: see what it is worth."""
        try:
            link, number, proof = heads.parse_first(first)
            who = self._expected.get(link)
            if who is None:
                raise WireError("no link of that id")
            self._strangers.pop(stranger)
            stranger.let_go()
            who.line_arrived(stranger.sock, number, proof)
        except WireError:
            self._count("data_unproved")
            self._drop(stranger)

    def refuse(self, stranger: _Stranger, why: str) -> None:
        self._count(why)
        self._drop(stranger)

    def _drop(self, stranger: _Stranger) -> None:
        if self._strangers.pop(stranger, stranger) is None:
            stranger.let_go()
        stranger.sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                with self._egress:
                    sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _NO_MORE:
                    self._rest()
                return
            sock.settimeout(0)
            self._make_room(peer[0])
            self._strangers[_Stranger(self, sock, peer[0])] = None

    def _make_room(self, address: str) -> None:
        same = [stranger for stranger in self._strangers if stranger.address == address]
        if len(same) >= MAX_OF_ADDRESS:
            self.refuse(same[0], "data_flood")
        elif len(self._strangers) >= MAX_UNPROVED:
            self.refuse(next(iter(self._strangers)), "data_flood")

    def _rest(self) -> None:
        """Without descriptors the socket stays readable: look again a little later."""
        self._count("no_descriptors")
        self._loop.remove_reader(self._sock.fileno())
        self._pause = self._loop.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._accept)


class Approach:
    """A data connection that is being dialled."""

    def __init__(
        self,
        address: tuple[str, int] | tuple[str, int, int, int],
        first: bytes,
        done: Callable[[socket.socket], None],
        failed: Callable[[str], None],
        egress: Egress,
    ) -> None:
        self._first, self._done, self._failed = first, done, failed
        self._where = f"{address[0]}:{address[1]}"
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with egress:
            self._sock: socket.socket | None = socket.socket(family, socket.SOCK_STREAM)
        self._sock.settimeout(0)
        tcp.prepare(self._sock)
        problem = self._sock.connect_ex(address)
        if problem in {0, errno.EINPROGRESS}:
            self._loop.add_writer(self._sock.fileno(), self._connected)
        else:
            self._loop.call_soon(self._give_up, problem)

    def close(self) -> None:
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _connected(self) -> None:
        sock = self._sock
        if sock is None:
            return
        problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not problem:
            with contextlib.suppress(OSError):
                if sock.send(self._first) == len(self._first):
                    self._loop.remove_writer(sock.fileno())
                    self._sock = None
                    self._done(sock)
                    return
            problem = errno.ECONNRESET
        self._give_up(problem)

    def _give_up(self, problem: int) -> None:
        if self._sock is not None:
            self.close()
            self._failed(f"no data connection to {self._where}: {os.strerror(problem)}")
