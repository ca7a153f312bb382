"""The asyncio client: one participant on the bus, reconnecting by itself.

The socket's descriptor is watched directly and drained in bounded turns: `zmq.asyncio` is an order of
magnitude slower. The descriptor is edge-triggered, so after every receive *and* send the state is looked
at again; forgetting that shows as rare hangs (pyzmq#199, #1203).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import lru_cache

from bus import sockets, subjects, wire
from bus.answers import Answers, Request, RequestHandler, SignalHandler
from bus.errors import (
    BusError,
    LocalProtocolError,
    NotAuthorised,
    Overflow,
    RemoteProtocolError,
    Unreachable,
)
from bus.identity import Address, KeyPair
from bus.session import DEADLINE_GRACE, ClientSession, Settled
from bus.subscription import Message, Subscription

log = logging.getLogger(__name__)

MAX_MESSAGE = 2 << 20  # bytes; over any broker's payload limit
DRAIN = 128  # messages a turn, then the loop may do something else
FIRST_RETRY, LAST_RETRY = 0.05, 2.0  # seconds between attempts to reconnect, before jitter
CONNECT_TIMEOUT = 5.0
_CLOSED = "this end of the connection was closed"


class Bus:
    """A participant's connection to the bus; made by `connect`."""

    def __init__(self, address: Address, keypair: KeyPair, name: str) -> None:
        self.address = address
        self.key = keypair.public
        self._keypair = keypair
        self._loop = asyncio.get_running_loop()
        self._context = sockets.new_context()
        self._session = ClientSession(name)
        self._socket: sockets.Socket | None = None
        self._monitor: sockets.Socket | None = None
        self._watched: list[int] = []
        self._results: dict[int, asyncio.Future[bytes]] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._answers = Answers(self._session.reply, self._write)
        self._welcomed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._reconnected: list[Callable[[], None]] = []
        self._welcomes = 0
        self._failures = 0  # consecutive
        self._outcome: asyncio.Future[None] | None = None  # of the first connection
        self._flushing = False
        self._published = ""  # the subject checked last
        self._timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False

    # For participants.

    @property
    def connected(self) -> bool:
        return self._welcomed.is_set()

    @property
    def roles(self) -> list[str]:
        welcome = self._session.welcome
        return welcome.roles if welcome else []

    @property
    def bytes_in(self) -> int:
        return self._session.bytes_in

    @property
    def bytes_out(self) -> int:
        return self._session.bytes_out

    async def wait_connected(self) -> None:
        await self._welcomed.wait()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call back after every WELCOME but the first; subscriptions and services are back by then."""
        self._reconnected.append(callback)

    async def request(
        self, subject: str, body: bytes = b"", *, to: str | None = None, timeout: float = 5.0
    ) -> bytes:
        """Ask who serves `subject`, or the participant `to`, and return the answer's body.

        Raises `NotPresent` at once when there is nobody, `NotAuthorised`, `DeadlineExceeded`, `Refused` with
        the answerer's own error, or `Unreachable` when the connection was lost and nobody knows.
        """
        _check(subject)
        ref = self._session.request(subject, body, to, timeout, time.monotonic())
        self._arm_by(self._loop.time() + timeout + DEADLINE_GRACE)
        return await self._settled(ref)

    async def signal(
        self, to: str, subject: str, body: bytes = b"", *, timeout: float = 5.0
    ) -> None:
        """Send one way to the participant `to`; returns when the broker has it. `NotPresent`."""
        _check(subject)
        ref = self._session.signal(to, subject, body, timeout, time.monotonic())
        self._arm_by(self._loop.time() + timeout)
        await self._settled(ref)

    def publish_nowait(self, subject: str, body: bytes = b"") -> None:
        """Publish, or raise `Overflow` when the bounded send buffer is full."""
        if self._session.full:
            raise Overflow(
                f"publish {subject}: the send buffer is full, the broker is away or slower"
            )
        self._publish(subject, body)

    async def publish(self, subject: str, body: bytes = b"") -> None:
        """Publish, waiting while the send buffer is full. At most once: nothing is sent again."""
        if self._publish(subject, body):
            await asyncio.sleep(0)  # a busy publisher must not starve its own loop
            while self._session.full:
                if self._closed:
                    raise Unreachable(_CLOSED)
                self._room.clear()
                await self._room.wait()

    def _publish(self, subject: str, body: bytes) -> bool:
        if self._closed:
            raise Unreachable(_CLOSED)
        if subject is not self._published:
            _check(subject)
            self._published = subject
        if self._session.publish(subject, body):
            self._write()
            return True
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return False

    async def subscribe(self, pattern: str, *, policy: str = "drop_old") -> Subscription:
        """Subscribe; what is published from the return on arrives. `NotAuthorised`."""
        if not subjects.is_pattern(pattern):
            raise LocalProtocolError(f"not a subject pattern: {pattern!r}")
        ref, sid = self._session.subscribe(pattern, policy)
        subscription = self._subscriptions[sid] = Subscription(pattern, lambda: self._drop(sid))
        try:
            await self._settled(ref)
        except BaseException:
            self._drop(sid)
            raise
        return subscription

    async def serve(self, subject: str, handler: RequestHandler) -> None:
        """Answer requests on `subject` (a pattern is allowed) with `handler`. `NotAuthorised`."""
        if not subjects.is_pattern(subject):
            raise LocalProtocolError(f"not a subject pattern: {subject!r}")
        self._answers.services[subject] = handler
        try:
            await self._settled(self._session.serve(subject))
        except BaseException:
            self._session.withdraw(subject)
            del self._answers.services[subject]
            raise

    def answer(self, subject: str, handler: RequestHandler) -> None:
        """Answer requests that are addressed to this participant's key."""
        self._answers.direct[subject] = handler

    def on_signal(self, subject: str, handler: SignalHandler) -> None:
        self._answers.signals[subject] = handler

    # Life.

    async def open(self, timeout: float) -> None:
        """Make the first connection; raises `NotAuthorised` or `Unreachable`."""
        self._outcome = self._loop.create_future()
        self._dial()
        try:
            async with asyncio.timeout(timeout):
                await self._outcome
        except TimeoutError:
            raise Unreachable(f"no broker answers at {self.address.endpoint}") from None
        finally:
            self._outcome = None

    async def close(self, reason: str = "") -> None:
        """Say goodbye, end every task and iteration, free the sockets."""
        if self._closed:
            return
        await self._answers.close()
        if self._socket is not None and self.connected:
            self._session.bye(reason)
            self._write()
            await asyncio.sleep(0.01)  # LINGER is 0: give the goodbye time to leave
        self._closed = True
        self._hang_up()
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        self._fail_all(Unreachable(_CLOSED))
        self._room.set()
        for subscription in self._subscriptions.values():
            subscription.end()
        self._context.destroy(linger=0)

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
        self._write()
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
        self._welcomed.clear()
        for settled in self._session.lost(reason):
            self._settle(settled)
        if self._outcome is not None and not self._outcome.done() and refusal is not None:
            self._outcome.set_exception(refusal)
            return
        pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self._failures, 10))
        self._failures += 1
        if self._retry is None and not self._closed:
            self._retry = self._loop.call_later(pause * random.uniform(0.5, 1.5), self._dial)  # noqa: S311

    # Reading.

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
                self._lost(self._session.farewell or "the connection to the broker was lost")
                return

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
        self._write()

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
            self._act(self._session.receive(head, body, time.monotonic()), body)
        except RemoteProtocolError as error:
            log.warning("the broker at %s does not speak SB/1: %s", self.address.endpoint, error)
            self._lost(f"protocol error: {error}")
        return True

    def _act(self, event: wire.Command | Settled | None, body: bytes) -> None:
        match event:
            case wire.Delivery(sid=sid, s=subject, sender=sender, n=n):
                subscription = self._subscriptions.get(sid)
                if subscription is not None:
                    self._deliver(subscription, subject, sender, n, body)
            case Settled():
                self._settle(event)
            case wire.RequestDelivery():
                self._answers.asked(event, body)
            case wire.SignalDelivery(s=subject, sender=sender):
                self._answers.signalled(Message(subject, sender, body))
            case wire.Gap(sid=sid, lost=lost):
                if sid in self._subscriptions:
                    self._subscriptions[sid].lost += lost
            case wire.Welcome():
                self._on_welcome()
            case wire.Error(err=err, msg=problem):
                # A reply that comes after its deadline is nobody's fault.
                level = logging.DEBUG if err == "no_request" else logging.WARNING
                log.log(level, "the broker refused: %s: %s", err, problem)
            case _:
                pass

    def _deliver(
        self, subscription: Subscription, subject: str, sender: str, n: int, body: bytes
    ) -> None:
        try:
            bodies = [body] if n == 1 else wire.split(body, n)
        except RemoteProtocolError:  # the publisher's fault, not the broker's: skip it
            subscription.lost += n
            return
        subscription.put(subject, sender, bodies, len(body))

    def _on_welcome(self) -> None:
        self._welcomes += 1
        self._failures = 0
        self._welcomed.set()
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(None)
        self._arm()
        self._write()
        if self._welcomes > 1:
            for callback in self._reconnected:
                self._loop.call_soon(callback)

    # Waiting and writing.

    async def _settled(self, ref: int) -> bytes:
        if self._closed:
            raise Unreachable(_CLOSED)
        result: asyncio.Future[bytes] = self._loop.create_future()
        self._results[ref] = result
        self._write()
        try:
            return await result
        finally:
            self._results.pop(ref, None)
            self._session.forget(ref)

    def _settle(self, settled: Settled) -> None:
        result = self._results.get(settled.id)
        if result is None or result.done():
            return
        if settled.error is None:
            result.set_result(settled.body)
        else:
            result.set_exception(settled.error)

    def _fail_all(self, error: BusError) -> None:
        for result in self._results.values():
            if not result.done():
                result.set_exception(error)

    def _drop(self, sid: int) -> None:
        self._subscriptions.pop(sid, None)
        self._session.unsubscribe(sid)
        self._write()

    def _flush(self) -> None:
        self._flushing = False
        self._write()

    def _write(self) -> None:
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
        if not self._room.is_set() and not session.full:
            self._room.set()

    def _send_all(self, socket: sockets.Socket) -> None:
        session = self._session
        while (outgoing := session.next) is not None:
            try:
                if outgoing.body is None:
                    socket.send(outgoing.head, sockets.DONTWAIT)
                else:
                    socket.send(outgoing.head, sockets.MORE)
                    small = len(outgoing.body) < sockets.COPY_BELOW
                    socket.send(outgoing.body, sockets.DONTWAIT, copy=small)
            except sockets.Again:
                return
            session.sent(time.monotonic())

    def _arm(self) -> None:
        """Set the timer for the session's next deadline."""
        self._arm_by(self._loop.time() + self._session.next_timer(time.monotonic()))

    def _arm_by(self, due: float) -> None:
        """See to it that the timer goes off at `due` (loop time) or before."""
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._closed:
            return
        try:
            for settled in self._session.handle_timer(time.monotonic()):
                self._settle(settled)
        except Unreachable as error:
            self._lost(str(error))
        self._write()
        self._arm()


@asynccontextmanager
async def connect(
    address: Address,
    keypair: KeyPair,
    *,
    name: str = "",
    timeout: float = CONNECT_TIMEOUT,
    prepare: Callable[[Bus], None] | None = None,
) -> AsyncIterator[Bus]:
    """Join the bus; the connection heals by itself until the block ends.

    `prepare` is called before: what it sets to be answered is answered from the first moment on.
    Raises `NotAuthorised` when the key is not allowed, `Unreachable` when no broker answers in time.
    """
    bus = Bus(address, keypair, name)
    if prepare is not None:
        prepare(bus)
    try:
        await bus.open(timeout)
        yield bus
    finally:
        with suppress(asyncio.CancelledError):
            await bus.close()


__all__ = [
    "Bus",
    "Message",
    "Request",
    "RequestHandler",
    "SignalHandler",
    "Subscription",
    "connect",
]


@lru_cache(maxsize=1024)
def _check(subject: str) -> None:
    if not subjects.is_subject(subject):
        raise LocalProtocolError(f"not a subject: {subject!r}")
