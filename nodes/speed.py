"""How fast a stream to another node is: bytes that are made at one end and only counted at the other.

An app of the node itself: it listens at `seen.SPEED_PORT`, as others do at theirs. Only who may ask this node
over the bus has it send; what comes from elsewhere costs no more than any stream does, and few are taken.
The bytes are moved by threads, whose work is in the kernel: the event loop has the rest to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from nodes.client import connect_node
from nodes.errors import NodeError, StreamReset
from nodes.seen import SPEED_PORT
from nodes.wire import Code

if TYPE_CHECKING:
    from pathlib import Path

    from nodes.client import Node
    from nodes.streams import Incoming

log = logging.getLogger(__name__)

MAX_COUNTED: Final = 4  # streams at the same time, that come
MAX_SENDING: Final = 2  # … that go
IDLE: Final = 10.0  # s without a byte
BUSY: Final = 1  # the code with which one more is refused
_BLOCK: Final = bytes(256 * 1024)
_REPORT: Final = struct.Struct(">Qd")  # bytes, seconds from the first to the last


class Meter:
    """See the module. `path` is the node's local socket."""

    def __init__(self, path: Path, tasks: asyncio.TaskGroup) -> None:
        self._path = path
        self._tasks = tasks
        self._counted = 0
        self._sending = 0
        self._node: Node | None = None

    async def run(self) -> None:
        """Count what comes, for as long as the node lives."""
        try:
            async with connect_node(self._path, "speed") as node:
                self._node = node
                async for incoming in await node.listen(SPEED_PORT):
                    if self._counted >= MAX_COUNTED:
                        await incoming.refuse(BUSY)
                    else:
                        self._counted += 1
                        self._tasks.create_task(self._take(incoming))
        except NodeError as error:  # the node stops
            log.debug("nothing is counted any more: %s", error)

    async def measure(self, peer: str, seconds: float) -> tuple[int, float]:
        """Send to `peer` for so long; bytes and seconds as they came there. Raises NodeError."""
        if self._node is None or self._sending >= MAX_SENDING:
            raise NodeError("this node measures something already; try again in a few seconds")
        self._sending += 1
        ours, theirs = socket.socketpair()
        try:
            opened = await self._node.open(peer, SPEED_PORT)
            flow = await opened.attach(theirs, idle=IDLE)
            try:
                return await asyncio.to_thread(_send, ours, seconds)
            except OSError:
                code = (await flow.closed()).code
                raise StreamReset(Code.LINK_LOST if code is Code.DONE else code) from None
            finally:
                await flow.reset()
        finally:
            self._sending -= 1
            ours.close()
            theirs.close()

    async def _take(self, incoming: Incoming) -> None:
        ours, theirs = socket.socketpair()
        try:
            flow = await incoming.attach(theirs, idle=IDLE)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_count, ours)
            ours.close()
            await flow.closed()
        except NodeError:
            pass
        finally:
            self._counted -= 1
            ours.close()
            theirs.close()


def _send(sock: socket.socket, seconds: float) -> tuple[int, float]:
    """In a thread: send for so long, then hear what came; raises OSError."""
    sock.settimeout(IDLE)
    sent, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        sock.sendall(_BLOCK)
        sent += len(_BLOCK)
    sock.shutdown(socket.SHUT_WR)
    report = b""
    while len(report) < _REPORT.size:
        piece = sock.recv(_REPORT.size - len(report))
        if not piece:
            raise ConnectionResetError
        report += piece
    octets, taken = _REPORT.unpack(report)
    if octets > sent or not 0 <= taken < math.inf:
        raise ConnectionResetError  # it is no report
    return octets, taken


def _count(sock: socket.socket) -> None:
    """In a thread: take what comes, then say what it was; raises OSError."""
    sock.settimeout(IDLE)
    buffer = bytearray(len(_BLOCK))
    octets, first, last = 0, 0.0, 0.0
    while size := sock.recv_into(buffer):
        last = time.monotonic()
        first = first or last
        octets += size
    sock.sendall(_REPORT.pack(octets, last - first))
