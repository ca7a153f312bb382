"""The broker's loop: reads what arrives, asks the router, writes what it decided.

One thread of plain blocking ZeroMQ, no asyncio: it costs a third of the time per message. Each turn
reads a bounded batch, answers ZAP, hears of lost connections, and only then lets the router decide, so
that a descriptor that libzmq has reused is never mistaken for its former owner.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket as sockets_of_python
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bus import keystore, sockets
from bus.access import AccessList
from bus.identity import KeyPair
from bus.peers import Connection, Session
from bus.router import LIMITS, Router
from bus.signals import BrokerInfo
from bus.zap import ZapHandler

VERSION = "0.1.0"
BATCH = 256  # messages read before anything is written
GRACE = 0.05  # seconds between GOODBYE and the cut, so that it can still leave
MAX_MESSAGE = LIMITS.payload + (
    64 << 10
)  # a little more than allowed, so that the offender is told


@dataclass(frozen=True)
class BrokerFiles:
    """Where a broker listens and where its key and its access list are."""

    endpoint: str
    key_file: Path
    access_file: Path


class _Received:
    """One message as read: the frames after the routing id, and who sent them."""

    __slots__ = ("body", "first", "head", "parts")

    def __init__(self, first: sockets.Frame) -> None:
        self.first = first
        self.head = b""
        self.body: bytes | None = None
        self.parts = 0


class Broker:
    """A running broker. `run` returns after `stop`, which a signal handler may call."""

    def __init__(self, files: BrokerFiles, log: Callable[[str, dict[str, object]], None]) -> None:
        """Bind and read; `KeyFileError`, `AccessError` or `BusError` say what is wrong."""
        self._files = files
        self._log = log
        keypair = keystore.load(files.key_file)
        access = keystore.load_access(files.access_file)
        self._context = sockets.new_context()
        try:
            self._open(keypair, access)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def _open(self, keypair: KeyPair, access: AccessList) -> None:
        self._zap = ZapHandler(
            self._context, {sockets.DOMAIN: lambda key: key in self.router.access}
        )
        self._socket = sockets.serve(
            self._context, keypair, self._files.endpoint, max_message=MAX_MESSAGE
        )
        self._monitor = sockets.watch(self._socket)
        self.info = BrokerInfo(
            endpoint=sockets.bound_endpoint(self._socket), key=keypair.public,
            epoch=int.from_bytes(os.urandom(6)), version=VERSION, pid=os.getpid(), sessions=0,
        )  # fmt: skip
        self.router = Router(
            access, self.info, save_access=lambda a: keystore.save_access(self._files.access_file, a),
            clock=time.time,
        )  # fmt: skip
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        for waker in (self._socket, self._monitor, self._zap.socket):
            self._poll.register(sockets.descriptor(waker), select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)
        self._blocked: dict[Session, None] = {}  # their pipe in libzmq is full
        self._cuts: deque[tuple[float, Connection]] = deque()
        self._inodes: dict[int, int] = {}  # of accepted descriptors, for the monitor's DISCONNECTED
        self._running = True
        self._reload = False

    def stop(self) -> None:
        self._running = False
        self._wake()

    def reload(self) -> None:
        """Read the access file again, in the loop's own time."""
        self._reload = True
        self._wake()

    def run(self) -> None:
        try:
            while self._running:
                if self._turn():
                    continue
                self._rest()
            self.router.lame("the broker is stopping")
            self._write(time.monotonic())
            time.sleep(GRACE)
        finally:
            self._socket.disable_monitor()
            self._context.destroy(linger=0)
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _turn(self) -> bool:
        """Do what there is to do, once; True when there may be more at once."""
        batch = self._read()
        busy = self._zap.drain()
        self._hear_of_connections()
        now = time.monotonic()
        for received in batch:
            self._decide(received, now)
        self.router.handle_timer(now)
        if self._reload:
            self._reload_access()
        self._write(now)
        return busy or len(batch) == BATCH or sockets.readable(self._socket)

    def _rest(self) -> None:
        now = time.monotonic()
        pause = self.router.next_timer(now)
        if self._cuts:
            pause = min(pause, max(0.0, self._cuts[0][0] - now))
        # A full pipe that drains wakes the socket's descriptor; the second is for a lost wake-up.
        if self._blocked:
            pause = min(pause, 1.0)
        ready = self._poll.poll(int(pause * 1000) + 1)
        if any(descriptor == self._wake_read for descriptor, _ in ready):
            os.read(self._wake_read, 512)

    def _read(self) -> list[_Received]:
        batch: list[_Received] = []
        receive = self._socket.recv
        while len(batch) < BATCH:
            try:
                received = _Received(receive(sockets.DONTWAIT, copy=False))
            except sockets.Again:
                break
            more = True
            while more:
                frame = receive(copy=False)
                received.parts += 1
                more = frame.more
                if received.parts == 1:
                    received.head = frame.bytes
                elif received.parts == 2:
                    received.body = frame.bytes
            batch.append(received)
        return batch

    def _decide(self, received: _Received, now: float) -> None:
        first = received.first
        rid, user = first.bytes, str(first.get("User-Id"))
        connection = Connection(rid, user)
        if received.head[3:4] == b"\x01" or not self.router.knows(connection):
            fd = int(first.get(sockets.SRCFD))
            connection = Connection(rid, user, fd, _inode(fd))
            self._inodes[fd] = connection.inode
        if received.parts > 2:
            self.router.malformed(connection, "a message is one or two frames after the routing id")
        else:
            self.router.handle(connection, received.head, received.body, now)

    def _hear_of_connections(self) -> None:
        for event in sockets.events(self._monitor):
            if event.kind == sockets.DISCONNECTED:
                inode = self._inodes.pop(event.value, None)
                if inode is not None:
                    self.router.disconnected(inode)
            elif event.kind == sockets.ACCEPT_FAILED:
                self._log("accept failed", {"error": os.strerror(event.value)})

    def _reload_access(self) -> None:
        self._reload = False
        try:
            access = keystore.load_access(self._files.access_file)
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the list in force stays
            self._log("access list not reloaded", {"error": str(error)})
            return
        self.router.replace_access(access)
        self._log("access list reloaded", {"keys": len(access.entries)})

    def _write(self, now: float) -> None:
        blocked, self._blocked = self._blocked, {}
        for session in [*blocked, *self.router.take_dirty()]:
            self._flush(session)
        for stray in self.router.take_strays():
            with contextlib.suppress(sockets.ZMQError):  # gone or full: then it need not hear
                self._send(stray.connection.rid, stray.head, None)
            if stray.cut:
                self._cuts.append((now + GRACE, stray.connection))
        for connection in self.router.take_cuts():
            self._cuts.append((now, connection))
        while self._cuts and self._cuts[0][0] <= now:
            _cut(self._cuts.popleft()[1])

    def _flush(self, session: Session) -> None:
        outbox, rid = session.outbox, session.connection.rid
        while len(outbox):
            outgoing = outbox.next
            try:
                self._send(rid, outgoing.head, outgoing.body)
            except sockets.Again:
                self._blocked[session] = None
                return
            except sockets.ZMQError:  # EHOSTUNREACH: gone, as the monitor will tell
                outbox.clear()
                return
            outbox.pop()
            session.bytes_out += outgoing.size
            session.messages_out += outgoing.count

    def _send(self, rid: bytes, head: bytes, body: bytes | None) -> None:
        """Hand one message to libzmq. Only the first frame can be refused, so none is torn."""
        send = self._socket.send
        send(rid, sockets.SNDMORE | sockets.DONTWAIT)
        if body is None:
            send(head, sockets.DONTWAIT)
        else:
            send(head, sockets.SNDMORE | sockets.DONTWAIT)
            send(body, sockets.DONTWAIT, copy=len(body) < sockets.COPY_BELOW)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b".")


def _inode(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:  # closed since
        return 0


def _cut(connection: Connection) -> None:
    """Shut the connection down, if its descriptor is still its own. Never close it: it is libzmq's."""
    if connection.inode == 0 or _inode(connection.fd) != connection.inode:
        return
    with contextlib.suppress(OSError):
        duplicate = sockets_of_python.socket(fileno=os.dup(connection.fd))
        try:
            duplicate.shutdown(sockets_of_python.SHUT_RDWR)
        finally:
            duplicate.close()
