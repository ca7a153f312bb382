"""One connection between an app and its node: framed messages and file descriptors, not blocking.

Used by both ends. A descriptor rides on the first byte of the message it belongs to; received
descriptors queue up in order, and those that no message claims are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from nodes.local import Deframer, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

_READ: Final = 64 * 1024
_MAX_DESCRIPTORS: Final = 16  # received and not claimed yet
_ANCILLARY: Final = socket.CMSG_SPACE(_MAX_DESCRIPTORS * struct.calcsize("i"))


class Channel:
    """Owns `sock`. `receive(body)` gets every message, `lost(reason)` is called once at the end.

    Both are called from the event loop and never after `close()`; `receive` may raise
    LocalProtocolError to end the connection.
    """

    def __init__(
        self,
        sock: socket.socket,
        receive: Callable[[bytes], None],
        lost: Callable[[str], None],
        *,
        max_queue: int,
        gather: bool = False,
    ) -> None:
        """`gather`: messages of one turn of the loop leave as one, and wake the peer once."""
        sock.settimeout(0)
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._receive = receive
        self._lost = lost
        self._max_queue = max_queue
        self._deframer = Deframer()
        self._descriptors: deque[int] = deque()
        self._queue: deque[tuple[memoryview, int]] = deque()  # unsent bytes, descriptor or -1
        self._queued = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._gather = gather
        self._blocked = False  # the socket is full, and watched
        self._closed = False
        self._loop.add_reader(sock, self._readable)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def queued(self) -> int:
        """Bytes that wait for the peer to read."""
        return self._queued

    def send(self, message: bytes, descriptor: int = -1) -> None:
        """Queue a message; `descriptor` belongs to the channel from now on and is closed once sent.

        A peer that does not read is cut when more than `max_queue` bytes wait for it.
        """
        if self._closed:
            _close_descriptor(descriptor)
            return
        self._queue.append((memoryview(message), descriptor))
        self._queued += len(message)
        if len(self._queue) == 1:
            if self._gather:
                self._loop.call_soon(self._write)
            else:
                self._write()
        if self._queued > self._max_queue:
            self._fail_later(f"it does not read: {self._queued} bytes wait for it")

    async def drain(self) -> None:
        """Return when everything has been handed to the kernel, or the connection has ended."""
        await self._drained.wait()

    def take_descriptor(self) -> int:
        """The descriptor that came with the message being received; raises LocalProtocolError."""
        if not self._descriptors:
            raise LocalProtocolError("message without the descriptor it needs")
        return self._descriptors.popleft()

    def close(self) -> None:
        if self._closed:
            return
        if self._gather and not self._blocked:
            self._write()  # what was said in this turn
        self._closed, self._blocked = True, False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, descriptor in self._queue:
            _close_descriptor(descriptor)
        self._queue.clear()
        self._drained.set()
        self._drop_descriptors()

    def _fail(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._lost(reason)

    def _fail_later(self, reason: str) -> None:
        """From inside `send`, whose caller must not find the connection gone half-way."""
        self._loop.call_soon(self._fail, reason)

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                _READ, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error.strerror or str(error))
            return
        self._keep_descriptors(ancillary)
        if not data:
            self._fail("it closed the connection")
            return
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > _MAX_DESCRIPTORS:
            self._fail("it sent more descriptors than messages")
            return
        try:
            for body in self._deframer.feed(data):
                self._receive(body)
                if self._closed:
                    return
        except LocalProtocolError as error:
            self._fail(str(error))
            return
        if self._deframer.empty:
            self._drop_descriptors()

    def _keep_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                size = struct.calcsize("i")
                usable = data[: len(data) - len(data) % size]
                self._descriptors.extend(number for (number,) in struct.iter_unpack("i", usable))

    def _drop_descriptors(self) -> None:
        while self._descriptors:
            _close_descriptor(self._descriptors.popleft())

    def _write(self) -> None:
        if self._gather and len(self._queue) > 1:
            self._join()
        while self._queue:
            data, descriptor = self._queue[0]
            try:
                if descriptor < 0:
                    sent = self._sock.send(data)
                else:
                    sent = socket.send_fds(self._sock, [data], [descriptor])
            except (BlockingIOError, InterruptedError):
                if not self._blocked:
                    self._blocked = True
                    self._drained.clear()
                    self._loop.add_writer(self._sock, self._write)
                return
            except OSError as error:
                self._fail_later(error.strerror or str(error))
                for _, unsent in self._queue:
                    _close_descriptor(unsent)
                self._queue.clear()
                break
            _close_descriptor(descriptor)
            self._queued -= sent
            if sent < len(data):
                self._queue[0] = (data[sent:], -1)
            else:
                self._queue.popleft()
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._sock)
            self._drained.set()

    def _join(self) -> None:
        """One piece of as many messages as have no descriptor with them."""
        if all(descriptor < 0 for _, descriptor in self._queue):
            joined = b"".join(data for data, _ in self._queue)
            self._queue.clear()
            self._queue.append((memoryview(joined), -1))


def _close_descriptor(descriptor: int) -> None:
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.close(descriptor)
