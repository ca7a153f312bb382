"""The hot path: bytes between a descriptor that an app handed over and a stream of the mesh.

A pump reads only when all of it can be passed on: the stream has credit, the session has room and
the link is not full; otherwise it is parked and the descriptor is not watched. What comes from the
mesh is written at once; what the descriptor does not take is kept, at most the stream's window.
There is no task and no allocation for a chunk on the way out; the frame is built in one buffer, of
which the first 24 bytes are the headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from nodes import wire
from nodes.flows import State
from nodes.lane import SPACE
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodes.flows import Stream
    from nodes.lane import Lane

CHUNKS_PER_TURN: Final = 4
FEW: Final = 4  # streams of a session; of more, each has one frame a turn, whatever it holds
JOIN_BELOW: Final = 4096  # smaller pieces that must wait are joined, or their overhead adds up
ANSWER_WITHIN: Final = 30  # s for an app to take a stream that waits for it

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_ORDERLY_CLOSE: Final = struct.pack("ii", 0, 0)


class Holder(Protocol):
    """The local side of a stream: who asked for it or listens for it."""

    def opened(self, pump: Pump, reply: bytes) -> None: ...

    def declined(self, pump: Pump, code: int, reply: bytes) -> None:
        """The far app refused. The last call."""
        ...

    def ended(self, pump: Pump) -> None:
        """All that the far end sent has been written."""
        ...

    def closed(self, pump: Pump, code: Code) -> None:
        """The stream is over, the descriptor closed. The last call."""
        ...


class _Phase(StrEnum):
    UNANSWERED = "unanswered"  # the far app, or ours, has not said yes
    UNATTACHED = "unattached"  # open, and no descriptor yet
    RUNNING = "running"
    CLOSED = "closed"


class Pump:
    """One end of a stream and its descriptor."""

    def __init__(
        self, lane: Lane, stream: Stream, holder: Holder, forget: Callable[[Pump], None]
    ) -> None:
        self.lane = lane
        self.stream = stream
        self.holder = holder
        self.handle = 0  # the holder's number for it
        self.is_quiet = False
        self._forget = forget  # called at the end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._phase = _Phase.UNANSWERED
        self._sock: socket.socket | None = None
        self._fd = -1
        self._early = memoryview(b"")
        self._pending: deque[memoryview | bytearray] = deque()
        self._reading = self._writing = self._parked = False
        self._read_end = self._wrote_end = False
        self._idle = 0.0
        self._still = 0  # ticks without traffic, or without an answer

    @property
    def is_closed(self) -> bool:
        return self._phase is _Phase.CLOSED

    @property
    def is_unattached(self) -> bool:
        return self._phase is _Phase.UNATTACHED

    # The local side -----------------------------------------------------------------------------

    def attach(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        idle: float,
        early: bytes = b"",
        head: bytes = b"",
        quiet: bool = False,
    ) -> None:
        """Take `sock` over and begin: first `head` is written to it, which is little.

        `quiet`: the holder wants to hear of the end only.
        """
        self.is_quiet = quiet
        sock.settimeout(0)
        if sock.family != socket.AF_UNIX:
            # If this process is killed, the kernel resets the connection instead of ending it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock, self._fd, self._loop = sock, sock.fileno(), loop
        self._idle, self._early, self._still = idle, memoryview(early), 0
        self._phase = _Phase.RUNNING
        if head and not self._write_head(sock, head):
            return
        if self._pending:
            self._write()
        self._end_writing()
        self.read()

    def answered(self) -> None:
        """Both apps want the stream."""
        self._phase = _Phase.UNATTACHED
        self._still = 0

    def tick(self) -> None:
        """Once a second."""
        self._still += 1
        if self._phase is _Phase.RUNNING:
            if self._idle and self._still > self._idle:
                self.reset(Code.IDLE)
        elif self._still > ANSWER_WITHIN and not (
            self._phase is _Phase.UNANSWERED and self.stream.state is State.OPENING
        ):
            self.reset(Code.TIMEOUT)

    def reset(self, code: Code) -> None:
        """Cut the stream at both ends."""
        if self._phase is not _Phase.CLOSED:
            self.lane.flows.reset(self.stream, code)
            self.lane.flush()
            self.cut(code)

    # The far side -------------------------------------------------------------------------------

    def deliver(self, data: memoryview) -> None:
        """Bytes came; write them, keep what does not fit."""
        if not data:
            return
        self._still = 0
        if self._sock is None or self._pending:
            self._keep(data)
            return
        try:
            size = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            size = 0
        except OSError as error:
            self._failed(error)
            return
        if size < len(data):
            self._keep(data[size:])
            self._watch_writing()
        self._took(size)

    def finished(self) -> None:
        """The far end will send no more."""
        self._end_writing()

    def credited(self) -> None:
        """The far reader took bytes."""
        if not self._reading and not self._parked:
            self.read()

    def cut(self, code: Code) -> None:
        """The stream is over: the descriptor sees a reset, or an orderly end for DONE."""
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        self._pending.clear()
        self._forget(self)
        sock = self._sock
        if sock is not None:
            self._stop_reading()
            self._stop_writing()
            self._sock = None
            if code is Code.DONE and sock.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ORDERLY_CLOSE)
            sock.close()
        self.holder.closed(self, code)

    # Descriptor -> mesh -------------------------------------------------------------------------

    def read(self) -> None:
        """Move what the descriptor has, as far as everybody further on has room."""
        sock, stream, lane = self._sock, self.stream, self.lane
        if sock is None or self._read_end or self._parked:
            return
        alone = len(lane.flows.streams) <= FEW
        for _ in range(CHUNKS_PER_TURN if alone else 1):
            if stream.may_send <= 0:
                self._stop_reading()  # credited() goes on
                return
            if not lane.ready(stream):
                self._park()
                return
            room = min(stream.may_send, lane.frame)
            size = self._send_early(room) if self._early else self._receive(sock, room)
            if size <= 0:
                return
            self._still = 0
            lane.send_data(stream, size)
            if size < room:
                break  # the descriptor is empty; asking it again would cost a call to learn that
        else:
            if lane.crowded(stream) and stream.may_send > 0:
                self._park()  # there is more, and it is the others' turn
                return
        self._watch_reading()

    def unpark(self) -> None:
        self._parked = False
        self.read()

    def _park(self) -> None:
        self._stop_reading()
        self._parked = True
        self.lane.park(self, self.stream)

    def _receive(self, sock: socket.socket, room: int) -> int:
        """Bytes put into the buffer; 0 when there is nothing to pass on now."""
        try:
            size = sock.recv_into(SPACE, room)
        except (BlockingIOError, InterruptedError):
            self._watch_reading()
            return 0
        except OSError as error:
            self._failed(error)
            return 0
        if size == 0:
            self._end_reading()
        return size

    def _send_early(self, room: int) -> int:
        piece = self._early[:room]
        SPACE[: len(piece)] = piece
        self._early = self._early[len(piece) :]
        return len(piece)

    def _end_reading(self) -> None:
        self._read_end = True
        self._stop_reading()
        self.lane.flows.finish(self.stream)
        self.lane.flush()
        self._end_if_done()

    # Mesh -> descriptor -------------------------------------------------------------------------

    def _write(self) -> None:
        """Write what was kept."""
        sock, pending = self._sock, self._pending
        if sock is None:
            return
        taken = 0
        try:
            for _ in range(CHUNKS_PER_TURN * 2):
                if not pending:
                    break
                size = sock.send(pending[0])
                taken += size
                if size < len(pending[0]):
                    pending[0] = memoryview(pending[0])[size:]
                    break
                pending.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._failed(error)
            return
        if taken:
            self._still = 0
            self._took(taken)
        if pending:
            self._watch_writing()
        else:
            self._stop_writing()
            self._end_writing()

    def _write_head(self, sock: socket.socket, head: bytes) -> bool:
        """Before anything of the stream; whether all of it went out at once."""
        try:
            if sock.send(head) == len(head):
                return True
        except OSError:
            pass
        self.reset(Code.TARGET_RESET)  # gone, or one that has not read for long
        return False

    def _took(self, size: int) -> None:
        lane = self.lane
        lane.took(self.stream, size)
        if lane.flows.outbox:
            lane.flush()

    def _keep(self, data: memoryview) -> None:
        if len(data) >= JOIN_BELOW:
            self._pending.append(bytearray(data))  # the buffer is the link's
            return
        last = self._pending[-1] if self._pending else None
        if isinstance(last, bytearray) and len(last) < wire.MAX_DATA:
            last += data
        else:
            self._pending.append(bytearray(data))

    def _end_writing(self) -> None:
        """When the far end has finished and all is written, say so to the descriptor."""
        if not self.stream.got_fin or self._pending or self._wrote_end or self._sock is None:
            return
        self._wrote_end = True
        self.holder.ended(self)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._read_end and self._wrote_end:
            self.cut(Code.DONE)

    def _failed(self, error: OSError) -> None:
        resource = error.errno in {errno.ENOBUFS, errno.ENOMEM}
        self.reset(Code.LIMIT if resource else Code.TARGET_RESET)

    # What the event loop watches ----------------------------------------------------------------

    def _watch_reading(self) -> None:
        if not self._reading and self._loop is not None and self._sock is not None:
            self._reading = True
            self._loop.add_reader(self._fd, self.read)

    def _stop_reading(self) -> None:
        if self._reading and self._loop is not None:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _watch_writing(self) -> None:
        if not self._writing and self._loop is not None and self._sock is not None:
            self._writing = True
            self._loop.add_writer(self._fd, self._write)

    def _stop_writing(self) -> None:
        if self._writing and self._loop is not None:
            self._writing = False
            self._loop.remove_writer(self._fd)
