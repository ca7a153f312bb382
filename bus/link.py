"""The asyncio end of a client's connections: sockets, timers, and trying again.

The socket's descriptor is watched directly and drained in bounded turns: `zmq.asyncio` is an order of
magnitude slower. The descriptor is edge-triggered, so after every receive *and* send the state is looked
at again; forgetting that shows as rare hangs (pyzmq#199, #1203).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from bus import sockets
from bus.egress import Egress, of_bus
from bus.errors import BusError, NotAuthorised, RemoteProtocolError, Unreachable
from bus.identity import Address, KeyPair
from bus.session import ClientSession, Event

log = logging.getLogger(__name__)

MAX_MESSAGE = 2 << 20  # bytes; over any broker's payload limit
DRAIN = 128  # messages a turn, then the loop may do something else
FIRST_RETRY, LAST_RETRY = 0.05, 2.0  # seconds between attempts to reconnect, before jitter

Act = Callable[[Event | None, bytes], None]


class Link:
    """Keeps one participant connected and moves what its session has to say and hear.

    `act` gets what arrives; `down` is called when a connection is lost or was not made. `refusal` is set
    while the broker does not let this key in.
    """

    def __init__(
        self,
        address: Address,
        keypair: KeyPair,
        session: ClientSession,
        *,
        act: Act,
        down: Callable[[], None],
        egress: Egress | None = None,
    ) -> None:
        self.address = address
        self.key = keypair.public
        self.connected = asyncio.Event()
        self.room = asyncio.Event()  # in the send buffer
        self.room.set()
        self.parted = asyncio.Event()  # after BYE: the broker has said GOODBYE
        self.refusal: NotAuthorised | None = None
        self._keypair = keypair
        self._session = session
        self._act = act
        self._down = down
        self._loop = asyncio.get_running_loop()
        self._context = sockets.new_context(egress=egress or of_bus(address.endpoint))
        self._socket: sockets.Socket | None = None
        self._monitor: sockets.Socket | None = None
        self._watched: list[int] = []
        self._failures = 0  # consecutive
        self._reason = ""  # of the last failure, as far as somebody told it
        self._outcome: asyncio.Future[None] | None = None  # of the first connection
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self.writing = False  # what is queued leaves at the end of this turn of the loop
        self._leaving = False
        self._closed = False

    async def open(self, timeout: float) -> None:
        """Make the first connection; raises what the broker refuses it with, or `Unreachable`."""
        self._outcome = self._loop.create_future()
        self._dial()
        try:
            async with asyncio.timeout(timeout):
                await self._outcome
        except TimeoutError:
            problem = f"no broker answers at {self.address.endpoint}"
            raise Unreachable(f"{problem}: {self._reason}" if self._reason else problem) from None
        finally:
            self._outcome = None

    async def part(self, timeout: float) -> None:
        """After BYE: wait until what is queued has left and the broker has taken it all."""
        self._leaving = True
        self.write()
        if self._socket is not None:
            try:
                async with asyncio.timeout(timeout):
                    await self.parted.wait()
            except TimeoutError:
                log.debug("the broker did not say goodbye within %s s", timeout)

    def close(self) -> None:
        """Free the sockets; nothing is sent or heard any more."""
        self._closed = self._leaving = True
        self._hang_up()
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        self.room.set()
        self._context.destroy(linger=0)

    def welcome(self) -> None:
        """The broker has welcomed us."""
        self._failures = 0
        self._reason = ""
        self.refusal = None
        self.parted.clear()
        self._arm()
        self.write()

    def ready(self) -> None:
        """And has taken up what the session had before."""
        self.connected.set()
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(None)

    def write(self) -> None:
        """Hand the transport what it takes; the descriptor tells when it takes more."""
        socket, session = self._socket, self._session
        if socket is None or self._closed:
            return
        while session.next is not None:
            self._send_all(socket)
            # Trying to send may have swallowed the descriptor's edge, so look at the state itself.
            state = sockets.state(socket)
            if state & sockets.READABLE:
                self._loop.call_soon(self._read)
            if not state & sockets.WRITABLE:
                break
        if not self.room.is_set() and not session.queue.full:
            self.room.set()

    def write_soon(self) -> None:
        """Write when this turn of the loop is over: what is queued in it leaves together."""
        if not self.writing:
            self.writing = True
            self._loop.call_soon(self._write_now)

    def _write_now(self) -> None:
        self.writing = False
        self.write()

    def arm_by(self, due: float) -> None:
        """See to it that the session's timer goes off at `due` (loop time) or before."""
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        if not self._closed:
            self._timer = self._loop.call_at(due, self._on_timer)

    # Connections.

    def _dial(self) -> None:
        self._retry = None
        try:
            self._socket, self._monitor = sockets.dial(
                self._context, self._keypair, self.address, max_message=MAX_MESSAGE
            )
        except Unreachable as error:
            self._lost(str(error))
            return
        for socket, reader in ((self._socket, self._read), (self._monitor, self._hear)):
            descriptor = sockets.descriptor(socket)
            self._loop.add_reader(descriptor, reader)
            self._watched.append(descriptor)
        self._session.opened(time.monotonic())
        self._arm()
        self.write()
        self._loop.call_soon(self._hear)

    def _hang_up(self) -> None:
        for descriptor in self._watched:
            self._loop.remove_reader(descriptor)
        self._watched.clear()
        if self._monitor is not None and self._socket is not None:
            sockets.close(self._socket)
            self._monitor.close(linger=0)
        self._socket = self._monitor = None

    def _lost(self, reason: str, refusal: BusError | None = None) -> None:
        """The connection is gone or was never made: fail what had left, and try again later."""
        self._hang_up()
        self.connected.clear()
        self.parted.set()
        self.refusal = refusal if isinstance(refusal, NotAuthorised) else None
        for settled in self._session.lost(reason):
            self._act(settled, b"")
        if self.refusal is not None:
            for settled in self._session.ledger.give_up(str(self.refusal)):
                self._act(settled, b"")
            self.room.set()  # who waits for it is to be told
        self._down()
        if self._outcome is not None and not self._outcome.done() and refusal is not None:
            self._outcome.set_exception(refusal)
            return
        pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self._failures, 10))
        self._failures += 1
        if self._retry is None and not self._leaving:
            self._retry = self._loop.call_later(pause * random.uniform(0.5, 1.5), self._dial)  # noqa: S311

    def _hear(self) -> None:
        """Act on what the monitor tells of the connection."""
        if self._monitor is None:
            return
        for event in sockets.events(self._monitor):
            if event.kind == sockets.HANDSHAKE_REFUSED:
                problem = f"the broker at {self.address.endpoint} does not allow the key {self.key}"
                self._lost(problem, NotAuthorised(problem))
                return
            if event.kind & (sockets.DISCONNECTED | sockets.CLOSED | sockets.HANDSHAKE_FAILED):
                self._read_rest()
                farewell = self._session.farewell
                reason = farewell.reason if farewell else "the connection to the broker was lost"
                self._lost(reason, self._refused())
                return

    def _refused(self) -> BusError | None:
        """What the broker answered HELLO with; None when it would be no use to stop trying for it."""
        refusal = self._session.refusal
        if refusal is None or self._session.welcome is not None:
            return None
        self._reason = str(refusal)
        if isinstance(refusal, NotAuthorised):
            return refusal
        final = isinstance(refusal, RemoteProtocolError) and refusal.code in {400, 413, 426}
        return refusal if final else None

    # Reading.

    def _read_rest(self) -> None:
        """Take in what had arrived before the connection ended, such as GOODBYE."""
        while self._socket is not None and self._receive():
            pass

    def _read(self) -> None:
        for turn in range(DRAIN):
            socket = self._socket
            if socket is None:
                return
            # After the first, asking for the state is cheaper than an exception for "no more".
            if (turn == 1 and not sockets.readable(socket)) or not self._receive():
                break
        else:
            self._loop.call_soon(self._read)
        self.write()

    def _receive(self) -> bool:
        """One message in; False when there is none."""
        socket = self._socket
        if socket is None:
            return False
        try:
            frame = socket.recv(sockets.DONTWAIT, copy=False)
        except sockets.Again:
            return False
        head, body, extra = frame.bytes, b"", False
        if frame.more:
            frame = socket.recv(0, copy=False)
            body = frame.bytes
            while frame.more:
                frame = socket.recv(0, copy=False)
                extra = True
        try:
            if extra:
                raise RemoteProtocolError(400, "bad_frame", "more than two frames")
            messages = self._session.messages(head, body)
            now = time.monotonic()
            for inner, inner_body in messages:
                content = inner_body or b""
                self._act(self._session.receive(inner, content, now), content)
            if len(messages) > 1 or self._session.queue.plenty:
                self.write()  # answers to these leave while what came next is worked on
        except RemoteProtocolError as error:
            log.warning("the broker at %s does not speak SB/1: %s", self.address.endpoint, error)
            self._lost(f"protocol error: {error}")
        return True

    # Writing and waiting.

    def _send_all(self, socket: sockets.Socket) -> None:
        session = self._session
        while (outgoing := session.next) is not None:
            count, head, body = session.parcel(outgoing)
            try:
                if body is None:
                    socket.send(head, sockets.DONTWAIT)
                else:
                    socket.send(head, sockets.MORE)
                    socket.send(body, sockets.DONTWAIT, copy=len(body) < sockets.COPY_BELOW)
            except sockets.Again:
                return
            now = time.monotonic()
            for _ in range(count):
                session.sent(now)

    def _arm(self) -> None:
        """Set the timer for the session's next deadline."""
        self.arm_by(self._loop.time() + self._session.next_timer(time.monotonic()))

    def _on_timer(self) -> None:
        self._timer = None
        if self._closed:
            return
        try:
            for settled in self._session.handle_timer(time.monotonic()):
                self._act(settled, b"")
        except Unreachable as error:
            self._lost(str(error))
        self.write()
        self._arm()
