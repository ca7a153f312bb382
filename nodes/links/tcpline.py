"""One data connection of a link: a TCP socket, heads sealed, payloads as they are.

A payload is copied by the kernel only: it is received into one buffer that all connections of the
node share, handed over where it lies, and sent on from there. Only what the socket does not take at
once is kept, and then the connection is full. It is always read: see docs/adr/0005.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from nodes import wire
from nodes.links.heads import PREFIX
from nodes.links.packet import Received
from nodes.wire import FrameType, WireError

if TYPE_CHECKING:
    import asyncio

    from nodes.links.base import Account, Packet
    from nodes.links.heads import Opener, Sealer

BUFFER: Final = 4 * (wire.MAX_PAYLOAD + PREFIX)  # bytes, read in one go
READS_PER_TURN: Final = 4
PIECES_PER_CALL: Final = 32  # buffers in one sendmsg
MAX_BACKLOG: Final = 64 << 20  # bytes kept for a neighbour that does not read
_NO_HEAD: Final = (0, 0, 0, 0, 0, 0)


class LineOwner(Protocol):
    """The link that a connection belongs to."""

    def line_opened(self, line: TcpLine) -> None:
        """The first frame came: the neighbour has the keys."""
        ...

    def line_received(self, packet: Packet) -> None:
        """Raises WireError."""
        ...

    def line_writable(self, line: TcpLine) -> None: ...

    def line_lost(self, line: TcpLine, reason: str) -> None:
        """The connection is over; called at most once."""
        ...


class TcpLine:
    """See the module. `number` counts the connections of a link from 0, `of` says how many."""

    __slots__ = (
        "_backlog",
        "_buffer",
        "_closed",
        "_due",
        "_fd",
        "_loop",
        "_opener",
        "_owner",
        "_packet",
        "_sealer",
        "_stash",
        "blocked",
        "bytes_in",
        "bytes_out",
        "kept",
        "number",
        "of",
        "opened",
        "sock",
    )

    def __init__(
        self,
        owner: LineOwner,
        sock: socket.socket,
        ends: tuple[Sealer, Opener],
        place: tuple[int, int],
        loop: asyncio.AbstractEventLoop,
        buffer: memoryview,
    ) -> None:
        self.number, self.of = place
        self.sock = sock
        self.blocked = False  # something is kept
        self.opened = False  # a frame of the neighbour came
        self.kept = 0  # bytes
        self.bytes_in = 0
        self.bytes_out = 0
        self._owner = owner
        self._sealer, self._opener = ends
        self._loop = loop
        self._buffer = buffer
        self._fd = sock.fileno()
        self._closed = False
        self._backlog: deque[tuple[memoryview, Account | None]] = deque()
        self._stash = b""  # the beginning of what has not come completely
        self._due = -1  # size of the payload that is to come, -1: a head is
        self._packet = Received(_NO_HEAD, memoryview(b""), owned=False)
        loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        if self.blocked:
            self._loop.remove_writer(self._fd)
        self.blocked = False
        for piece, account in self._backlog:
            if account is not None:
                account.kept -= len(piece)
        self._backlog.clear()
        self.kept = 0
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    # Out ----------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that are kept before the link is cut."""
        return MAX_BACKLOG - self.kept

    def send(
        self, head: bytes, payload: bytes | bytearray | memoryview, account: Account | None = None
    ) -> None:
        """Send a frame; what has to be kept is copied, and on `account` if there is one."""
        if self._closed:
            return
        size = len(payload)
        prefix = self._sealer.seal(head, size)
        self.bytes_out += wire.HEAD.size + size
        sent = 0
        if not self.blocked:
            try:
                sent = self.sock.sendmsg((prefix, payload))
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._loop.call_soon(self._fail, error.strerror or str(error))
                return
            if sent == PREFIX + size:
                return
            self.blocked = True
            self._loop.add_writer(self._fd, self._flush)
        self._keep(prefix, payload, sent, account)

    def _keep(
        self,
        prefix: bytes,
        payload: bytes | bytearray | memoryview,
        sent: int,
        account: Account | None,
    ) -> None:
        """Keep a frame of which `sent` bytes are out."""
        if sent < PREFIX:
            self._backlog.append((memoryview(prefix)[sent:], None))
            self.kept += PREFIX - sent
            sent = PREFIX
        rest = bytes(memoryview(payload)[sent - PREFIX :])
        if rest:
            self._backlog.append((memoryview(rest), account))
            self.kept += len(rest)
            if account is not None:
                account.kept += len(rest)
        if self.kept > MAX_BACKLOG:
            self._loop.call_soon(self._fail, "it does not read")

    def _flush(self) -> None:
        """Send what was kept, as far as there is room."""
        backlog = self._backlog
        while backlog:
            pieces = [piece for piece, _ in islice(backlog, PIECES_PER_CALL)]
            try:
                sent = self.sock.sendmsg(pieces)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(error.strerror or str(error))
                return
            if not self._sent(sent, sum(map(len, pieces))):
                return
        self.blocked = False
        self._loop.remove_writer(self._fd)
        self._owner.line_writable(self)

    def _sent(self, sent: int, wanted: int) -> bool:
        """Strike `sent` bytes off the backlog; True when that was all that was offered."""
        self.kept -= sent
        left = sent
        while left:
            piece, account = self._backlog[0]
            done = min(left, len(piece))
            if account is not None:
                account.kept -= done
            if done == len(piece):
                self._backlog.popleft()
            else:
                self._backlog[0] = (piece[done:], account)
            left -= done
        return sent == wanted

    # In -----------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            for _ in range(READS_PER_TURN):
                if not self._read_once():
                    return
        except WireError as error:
            self._fail(f"it broke the protocol: {error}")
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error.strerror or str(error))

    def _read_once(self) -> bool:
        """Read and hand over what came; True when there may be more."""
        have, buffer = len(self._stash), self._buffer
        if have:
            buffer[:have] = self._stash
        got = self.sock.recv_into(buffer[have:])
        if not got:
            self._fail("the connection ended")
            return False
        end = have + got
        at = self._hand_over(end)
        if self._closed:
            return False
        self._stash = bytes(buffer[at:end]) if at < end else b""
        return end == len(buffer)

    def _hand_over(self, end: int) -> int:
        """Hand over the frames in the first `end` bytes of the buffer; returns where they end."""
        at, buffer, packet = 0, self._buffer, self._packet
        while not self._closed:
            if self._due < 0:
                if end - at < PREFIX:
                    return at
                self._open(buffer[at : at + PREFIX])
                at += PREFIX
            size = self._due
            if end - at < size:
                return at
            packet.payload = buffer[at : at + size]
            at += size
            self._due = -1
            self.bytes_in += wire.HEAD.size + size
            if packet.type == FrameType.DATA:
                self._owner.line_received(packet)
            if not self.opened:
                self.opened = True
                self._owner.line_opened(self)
        return at

    def _open(self, prefix: memoryview) -> None:
        head, self._due = self._opener.open(prefix)
        packet = self._packet
        fields = wire.parse_head(head)
        packet.type, packet.lane, packet.epoch, packet.ttl, packet.label, packet.counter = fields
        if packet.type == FrameType.ALIVE and not self._due:
            return
        if packet.type != FrameType.DATA or not 1 <= packet.lane <= wire.DATA_LANES:
            raise WireError(f"type {packet.type}, lane {packet.lane} on a data connection")
        if (packet.label + packet.lane) % self.of != self.number:
            raise WireError("a frame on a data connection that is not its own")

    def _fail(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._owner.line_lost(self, reason)
