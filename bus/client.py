"""The asyncio client: one participant on the bus, reconnecting by itself. How to use it: docs/client.md."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from bus import subjects, wire
from bus.answering import Answering
from bus.answers import Answers, Request, RequestHandler, SignalHandler
from bus.asking import Answer, Asking
from bus.calls import Calls
from bus.consumer import DurableTopics, Page, Pulled, Record, Stored
from bus.egress import Egress
from bus.errors import (
    BusError,
    LocalProtocolError,
    Overflow,
    RemoteProtocolError,
    Unreachable,
)
from bus.identity import Address, KeyPair
from bus.link import Link
from bus.sending import BODY_COST, check_bytes, check_subject
from bus.session import ClientSession, Event
from bus.subscription import DISCONNECT, DROP_OLD, Message, Share, Subscription
from bus.waiting import Part, Postponed, Settled, SettledTogether, Unknown, Withdrawn

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
GROUP_WINDOW = 64  # messages under way to a queue group's member, unless it says otherwise
CLOSE_PATIENCE = 0.25  # seconds that a goodbye may take
DRAIN_PATIENCE = 10.0
_CLOSED = "this end of the connection was closed"


class Bus(Asking, Answering, DurableTopics):
    """A participant's connection to the bus; made by `connect`."""

    def __init__(
        self,
        address: Address,
        keypair: KeyPair,
        name: str = "",
        will: tuple[str, bytes] | None = None,
        egress: Egress | None = None,
    ) -> None:
        self.address = address
        self.key = keypair.public
        self._loop = asyncio.get_running_loop()
        self._session = ClientSession(name, will)
        self._queue = self._session.queue
        self._link = Link(
            address, keypair, self._session, act=self._act, down=self._down, egress=egress
        )
        self._calls = Calls(self._session, self._link)
        link = self._link
        self._answers = Answers(self._session.reply, link.write, link.write_soon, self._calls.room)
        self._subscriptions: dict[int, Subscription] = {}
        self._reconnected: list[Callable[[], None]] = []
        self._noticed: list[Callable[[float, str], None]] = []
        self._welcomes = 0
        self._published = ""  # the subject checked last
        self._closed = False
        self._handlers: dict[type[Any], Callable[[Any, bytes], None]] = {
            Part: self._calls.part,
            SettledTogether: self._calls.settled_together,
            Postponed: lambda event, _: self._link.arm_by(self._loop.time() + event.seconds),
            Withdrawn: self._withdrawn,
            Unknown: lambda event, _: log.debug("unknown command 0x%02x: ignored", event.code),
            wire.SignalDelivery: lambda event, body: self._answers.signalled(
                Message(event.s, event.sender, body)
            ),
            wire.CreditDelivery: lambda event, _: self._answers.granted(event.r, event.m),
            wire.CancelDelivery: lambda event, _: self._answers.cancelled(event.r),
            wire.Gap: self._skipped,
            wire.Welcome: self._welcome,
            wire.Pong: lambda _, __: self._ready(),
            wire.Goodbye: lambda _, __: self._link.parted.set(),
            wire.Notice: self._notice,
            wire.Error: self._refused,
        }

    @property
    def connected(self) -> bool:
        return self._link.connected.is_set()

    @property
    def refusal(self) -> BusError | None:
        """Why the broker does not let us in, by its last answer; it is asked again all the same."""
        return self._link.refusal

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
        await self._link.connected.wait()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call back after every WELCOME but the first; subscriptions and services are back by then."""
        self._reconnected.append(callback)

    def on_notice(self, callback: Callable[[float, str], None]) -> None:
        """Call back with seconds and reason when the broker says that it will stop within so long."""
        self._noticed.append(callback)

    # Publishing and subscribing.

    def publish_nowait(self, subject: str, body: bytes = b"") -> None:
        """Publish, or raise `Overflow` when the bounded send buffer is full."""
        if self._queue.full:
            raise Overflow(f"publish {subject}: the send buffer is full, the broker away or slow")
        self._check_publish(subject, body)
        if self._queue.publish(subject, body):
            self._link.write()
        else:
            self._link.write_soon()

    async def publish(self, subject: str, body: bytes = b"") -> None:
        """Publish, waiting while the send buffer is full. At most once: nothing is sent again."""
        queue = self._queue
        if (
            subject is queue.subject
            and type(body) is bytes
            and (room := queue.room - len(body) - BODY_COST) >= 0
            and self._calls.barred is None
        ):  # goes with those just before it; without a call, since this is the hot path of the bus
            queue.batch.append(body)
            queue.room = room
            return
        self._check_publish(subject, body)
        if queue.publish(subject, body):
            self._link.write()
            await asyncio.sleep(0)  # a busy publisher must not starve its own loop
            if queue.full:
                await self._calls.room()
        else:
            self._link.write_soon()

    def _check_publish(self, subject: str, body: bytes) -> None:
        if self._calls.barred is not None:
            self._calls.check()
        if subject is not self._published:
            check_subject(subject)
            self._published = subject
        if type(body) is not bytes:
            check_bytes("publish", subject, body)

    async def subscribe(
        self, pattern: str, *, policy: str = DROP_OLD, group: str = "", window: int = 0
    ) -> Subscription:
        """Subscribe; what is published from the return on arrives. `NotAuthorised`.

        `policy` decides what gives way when the reader is too slow: drop_old, drop_new, or disconnect, the
        subscription itself. Each message goes to one member of a `group`; at most `window` (64) of them
        are under way to this one, and reading the next gives one back.
        """
        if not subjects.is_pattern(pattern):
            raise LocalProtocolError(f"not a subject pattern: {pattern!r}")
        if window and not group:
            raise LocalProtocolError(f"subscribe {pattern}: a window is for a queue group")
        window = (window or GROUP_WINDOW) if group else 0
        ref, sid = self._session.standing.subscribe(pattern, policy, group, window)
        share = Share(window, lambda n: self._give_back(sid, n)) if group else None
        subscription = self._subscriptions[sid] = Subscription(
            pattern, lambda: self._drop(sid), policy=policy, share=share
        )
        try:
            await self._calls.result(ref)
        except BusError:  # the broker has none to take back
            self._subscriptions.pop(sid, None)
            self._session.standing.withdraw(sid)
            raise
        except BaseException:
            self._drop(sid)
            raise
        subscription.live = True
        return subscription

    # Life.

    async def open(self, timeout: float) -> None:
        """Make the first connection; raises `NotAuthorised` or `Unreachable`."""
        await self._link.open(timeout)

    async def drain(self, *, timeout: float = DRAIN_PATIENCE) -> None:
        """Leave without dropping anything; what is not done within `timeout` seconds is cut off.

        Stops serving, finishes what handlers have begun, lets what is queued leave, says goodbye.
        """
        end = self._loop.time() + timeout
        for subject in list(self._answers.services):
            with suppress(BusError):
                await self.unserve(subject, timeout=max(0.0, end - self._loop.time()))
        self._answers.leaving = True
        await self._answers.finish(max(0.0, end - self._loop.time()))
        if not self.connected and not self._queue.empty:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wait_connected(), max(0.0, end - self._loop.time()))
        await self.close("drained", patience=max(CLOSE_PATIENCE, end - self._loop.time()))

    async def close(self, reason: str = "", *, patience: float = CLOSE_PATIENCE) -> None:
        """Say goodbye, end every task and iteration, free the sockets.

        What is queued leaves before the goodbye, as far as the broker takes it within `patience` seconds.
        """
        if self._closed:
            return
        self._closed = True
        try:
            await self._answers.close()
            if self._session.welcome is not None:
                self._session.bye(reason)
                self._calls.barred = Unreachable(_CLOSED)
                await self._link.part(patience)
        finally:
            self._calls.barred = Unreachable(_CLOSED)
            self._link.close()
            self._calls.fail_all(self._calls.barred)
            for subscription in self._subscriptions.values():
                subscription.end()

    # What arrives.

    def _act(self, event: Event | None, body: bytes) -> None:
        kind = type(event)
        if kind is wire.Delivery:
            self._deliver(event, body)  # type: ignore[arg-type]
        elif kind is Settled:
            self._calls.settled(event)  # type: ignore[arg-type]
        elif kind is wire.RequestDelivery:
            self._answers.asked(event, body)  # type: ignore[arg-type]
        else:
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(event, body)

    def _deliver(self, delivery: wire.Delivery, body: bytes) -> None:
        subscription = self._subscriptions.get(delivery.sid)
        if subscription is None:
            return
        n = delivery.n
        try:
            bodies = [body] if n == 1 else wire.split(body, n)
        except RemoteProtocolError:  # the publisher's fault, not the broker's: skip it
            subscription.skipped(n)
            return
        subscription.put(delivery.s, delivery.sender, bodies, len(body))

    def _skipped(self, gap: wire.Gap, _body: bytes) -> None:
        if gap.sid in self._subscriptions:
            self._subscriptions[gap.sid].skipped(gap.lost, gap.first)

    def _withdrawn(self, event: Withdrawn, _body: bytes) -> None:
        if event.sid is None:
            self._answers.services.pop(event.subject, None)
            log.warning("the broker has ended the service %s: %s", event.subject, event.error)
        elif event.sid in self._subscriptions:
            self._subscriptions.pop(event.sid).end(event.error)

    def _notice(self, notice: wire.Notice, _body: bytes) -> None:
        for callback in self._noticed:
            self._loop.call_soon(callback, notice.drain / 1000, notice.reason)

    def _refused(self, error: wire.Error, _body: bytes) -> None:
        # A reply that comes after its deadline is nobody's fault.
        level = logging.DEBUG if error.err == "no_request" else logging.WARNING
        log.log(level, "the broker refused: %s: %s", error.err, error.msg)

    def _welcome(self, _welcome: wire.Welcome, _body: bytes) -> None:
        self._welcomes += 1
        self._calls.barred = None
        for subscription in self._subscriptions.values():
            subscription.restarted()
        self._link.welcome()
        self._ready()

    def _ready(self) -> None:
        """Once the broker has taken up what stands, this participant is on the bus again."""
        if self.connected or not self._session.restored:
            return
        self._link.ready()
        if self._welcomes > 1:
            for callback in self._reconnected:
                self._loop.call_soon(callback)

    def _down(self) -> None:
        """The connection is gone, or was not made."""
        self._answers.lost()
        if not self._closed:
            self._calls.barred = self._link.refusal
        farewell = self._session.farewell
        for sid, subscription in list(self._subscriptions.items()):
            if subscription.policy != DISCONNECT or not subscription.live:
                continue
            self._drop(sid)  # it wants to miss nothing, and may have
            slow = farewell is not None and farewell.num == 429
            reason = farewell.reason if farewell else "the connection was lost"
            kind = Overflow if slow else Unreachable
            subscription.end(kind(f"{subscription.pattern}: {reason}"))

    def _drop(self, sid: int) -> None:
        self._subscriptions.pop(sid, None)
        self._session.standing.unsubscribe(sid)
        self._link.write()

    def _give_back(self, sid: int, n: int) -> None:
        self._session.grant(n, sid=sid)
        self._link.write()


@asynccontextmanager
async def connect(
    address: Address,
    keypair: KeyPair,
    *,
    name: str = "",
    timeout: float = CONNECT_TIMEOUT,
    prepare: Callable[[Bus], None] | None = None,
    will: tuple[str, bytes] | None = None,
    egress: Egress | None = None,
) -> AsyncIterator[Bus]:
    """Join the bus; the connection heals by itself until the block ends.

    `prepare` is called before: what it sets to be answered is answered from the first moment on. `will`
    (subject, body) is published by the broker if this participant ends without a goodbye. The connection
    belongs to `egress`. Raises
    `NotAuthorised` (for a will that may not be published, too), or `Unreachable` when no broker answers.
    """
    bus = Bus(address, keypair, name, will, egress)
    try:
        if prepare is not None:
            prepare(bus)
        await bus.open(timeout)
        yield bus
    finally:
        with suppress(asyncio.CancelledError):
            await bus.close()


__all__ = [
    "Answer", "Bus", "Message", "Page", "Pulled", "Record", "Request", "RequestHandler", "SignalHandler",
    "Stored", "Subscription", "connect",
]  # fmt: skip
