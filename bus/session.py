"""A client's side of SB/1: what to send, what is waited for, when to give up. No I/O, no clock.

Shells (`client` for asyncio, `caller` for blocking programs) move messages between `next` and a socket
and act on what `receive` returns. One connection is one session: after `lost` the shell makes a new
connection, calls `opened`, and the WELCOME that follows brings back every subscription and service.
A request that had left when the connection was lost fails, for nobody knows whether it was carried out,
unless it is one that may be carried out twice: that is sent again until its deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bus import wire
from bus.durable_calls import DurableCalls
from bus.errors import (
    BusError,
    LocalProtocolError,
    NotAuthorised,
    Refused,
    Unreachable,
)
from bus.greeting import CREDIT, hello
from bus.identity import KEY_TEXT
from bus.sending import (
    Outgoing,
    SendQueue,
    checked,
    milliseconds,
    plain_reply,
    plain_request,
)
from bus.standing import RESTORED, Standing
from bus.waiting import (
    DEADLINE_GRACE,
    Ledger,
    Part,
    Postponed,
    Settled,
    SettledTogether,
    Unknown,
    Waiting,
    Withdrawn,
    as_exception,
)

_PLAIN_REPLY = (plain_reply,)
_BUNDLE = wire.encode(wire.BundleDelivery(1))[:4]

Event = wire.Command | Settled | SettledTogether | Part | Postponed | Withdrawn | Unknown


class ClientSession:
    """One participant's protocol state over all its connections. `now` is monotonic seconds.

    `will` (subject, body) is published by the broker when a connection ends without a goodbye.
    """

    def __init__(self, name: str, will: tuple[str, bytes] | None = None) -> None:
        self.welcome: wire.Welcome | None = None  # of the present connection
        self.farewell: wire.Goodbye | None = None  # why the broker ended the last one
        self.refusal: BusError | None = None  # why the broker did not welcome us, last time
        self.bytes_in = 0  # heads and bodies, over all connections
        self.bytes_out = 0
        self.queue = SendQueue()
        self.publish = self.queue.publish  # bound once: the hot path
        self._hello = hello(name, will)
        self._bundles = False  # the broker takes them
        self._handshake: Outgoing | None = None
        self.ledger = Ledger()
        self._new_id = self.ledger.new_id
        self.durable = DurableCalls(self.queue, self.ledger)
        self.standing = Standing(self.queue, self.ledger)
        self.restored = False  # what stands is in force on the present connection
        self._taken = self._taken_bytes = 0  # deliveries since credit was last given back
        self._heard = 0.0
        self._spoke = 0.0
        self._decode = wire.Decoder(wire.FROM_BROKER).decode
        self._handlers: dict[type[wire.Command], Callable[[Any, bytes, float], Event | None]] = {
            wire.ReplyDelivery: self._replied,
            wire.Ok: self._done,
            wire.Record: self.durable.recorded,
            wire.Error: self._refused,
            wire.Welcome: self._welcomed,
            wire.Goodbye: self._dismissed,
            wire.Ended: lambda command, _body, _now: self.standing.ended(command),
            wire.Pong: self._ponged,
        }

    # The connection.

    def opened(self, now: float) -> None:
        """A new connection is being made; HELLO is the first to leave on it."""
        self.welcome = self.farewell = self.refusal = None
        self._bundles = self.restored = self.standing.connected = False
        self._heard = self._spoke = now
        self._taken = self._taken_bytes = 0
        self._handshake = self._hello

    def lost(self, reason: str) -> list[Settled]:
        """The connection is gone: what had left and is unanswered has failed, or will be sent again."""
        self.welcome = None
        self.restored = self.standing.connected = False
        self._handshake = None
        self.queue.keep(lambda out: not out.transient, [])
        self.durable.lost()
        revoked = self.farewell is not None and self.farewell.num == 401
        return self.ledger.lost(NotAuthorised if revoked else Unreachable, reason)

    def receive(self, head: bytes, body: bytes, now: float) -> Event | None:
        """One message from the broker; `RemoteProtocolError` when it is not SB/1."""
        self._heard = now
        self.bytes_in += len(head) + len(body)
        try:
            command = self._decode(head)
        except wire.UnknownCommand:
            return Unknown(head[3])
        kind = type(command)
        if kind is wire.Delivery:
            self._taken += command.n  # type: ignore[attr-defined]
            self._taken_bytes += len(body)
            if 2 * self._taken >= CREDIT.m or 2 * self._taken_bytes >= CREDIT.b:
                self._top_up()
            return command
        handler = self._handlers.get(kind)
        return command if handler is None else handler(command, body, now)

    @property
    def next(self) -> Outgoing | None:
        """What may leave now; the shell says `sent` once the transport has taken it."""
        return self._handshake if self.welcome is None else self.queue.next

    def parcel(self, first: Outgoing) -> tuple[int, bytes, bytes | None]:
        """`first` and those after it that may leave with it: how many, head and body."""
        if self._bundles and len(self.queue) > 1:
            return self.queue.bundle()
        return 1, first.head, first.body

    def messages(self, head: bytes, body: bytes) -> wire.Messages:
        """What came as one message: a bundle's messages, or itself. `RemoteProtocolError`."""
        if head[:4] != _BUNDLE:
            return [(head, body)]
        return wire.unpack_bundle(body, self._decode(head).n)  # type: ignore[attr-defined]

    def sent(self, now: float) -> None:
        self._spoke = now
        if self.welcome is None:
            self._handshake = None
            return
        outgoing, size = self.queue.pop()
        self.bytes_out += size
        if outgoing.id is None or outgoing.transient:
            return
        for ref in outgoing.ids:
            waiting = self.ledger.get(ref)
            if waiting is not None:
                waiting.left = True
        if outgoing.n > 1:
            self.durable.left(outgoing)

    def next_timer(self, now: float) -> float:
        """Seconds until `handle_timer` has work."""
        times = self.ledger.next_due(now)
        if self.welcome:
            times.append(self._spoke + self.welcome.hb / 1250 - now)
            times.append(self._heard + 3 * self.welcome.hb / 1000 - now)
        return max(0.0, min(times, default=10.0))

    def handle_timer(self, now: float) -> list[Settled]:
        """Fail what is overdue, send again what is due, keep the session alive.

        `Unreachable` when the broker is silent.
        """
        if self.welcome:
            if now - self._heard > 3 * self.welcome.hb / 1000:
                raise Unreachable("the broker has been silent for three heartbeats")
            if now - self._spoke >= self.welcome.hb / 1250:
                self.queue.push(wire.Ping(t=0), transient=True)
            for ref, waiting in self.ledger.due(now):
                self.queue.push(waiting.repeat(now), waiting.body, ref)
        return self.ledger.overdue(now)

    # What a participant does. Each returns the id under which `Settled` will tell how it ended.

    def request(
        self,
        subject: str,
        body: bytes,
        to: str | None,
        timeout: float,
        now: float,
        *,
        idem: str = "",
    ) -> int:
        """Ask for one reply; with the token `idem` it is sent again until the deadline."""
        ref = self._new_id()
        # What the broker answers itself is never part of a batch.
        if to is None and not idem and not subject.startswith("$SYS."):
            self.queue.check_size("request", subject, body)
            self.queue.add(ref, body, (plain_request, subject, milliseconds(timeout)))
            self.ledger.add(ref, Waiting("request", subject, now + timeout + DEADLINE_GRACE))
            return ref
        command = wire.Request(ref, subject, milliseconds(timeout), to, idem)
        waiting = self._ask(command, body, timeout, now)
        if idem:
            waiting.again, waiting.body = command, body
        return ref

    def stream(
        self, subject: str, body: bytes, to: str | None, timeout: float, window: int, now: float
    ) -> int:
        """Ask for a streamed reply: a `Part` for each chunk, `window` of them before more are granted."""
        ref = self._new_id()
        command = wire.Request(ref, subject, milliseconds(timeout), to, stream=window)
        checked(command, f"stream {subject}")
        self._ask(command, body, timeout, now).many = True
        return ref

    def gather(self, subject: str, body: bytes, timeout: float, now: float) -> int:
        """Ask everybody who serves `subject`: a `Part` for each answer."""
        ref = self._new_id()
        command = wire.Request(ref, subject, milliseconds(timeout), all=True)
        self._ask(command, body, timeout, now).many = True
        return ref

    def cancel(self, ref: int) -> None:
        """The replies to `ref` are no longer wanted; nothing happens when they have ended."""
        waiting = self.ledger.end(ref)
        if waiting is not None and self.welcome is not None:
            self.queue.push(wire.Cancel(ref), transient=True)

    def signal(self, to: str, subject: str, body: bytes, timeout: float, now: float) -> int:
        self.queue.check_size("signal", subject, body)
        _check_key(to)
        ref = self._new_id()
        self.queue.push(wire.Signal(to, subject, ref), body, ref)
        self.ledger.add(ref, Waiting("signal", subject, now + timeout))
        return ref

    def reply(
        self, handle: int, body: bytes, refused: Refused | None = None, *, more: bool = False
    ) -> bool:
        """Answer, or with `more` send one chunk of the answer; False when that ended it."""
        if not isinstance(body, bytes):
            raise TypeError(f"an answer is bytes, not {type(body).__name__}")
        limit = self.queue.max_payload
        if refused is None and len(body) > limit:
            size = f"the reply of {len(body)} bytes is over the limit of {limit}"
            refused = Refused(413, "too_large", size)
        if refused is None:
            if more:
                self.queue.push(wire.Reply(handle, more=True), body, transient=True)
            else:
                self.queue.add(handle, body, _PLAIN_REPLY, transient=True)
            return more
        err, message = wire.clip(refused.err, 64) or "refused", wire.clip(str(refused))
        self.queue.push(wire.Reply(handle, err, message, refused.code), transient=True)
        return False

    def grant(self, m: int, *, sid: int | None = None, ref: int | None = None) -> None:
        """Leave for `m` more messages of a group's subscription, or chunks of a streamed reply."""
        if self.welcome is not None:
            self.queue.push(wire.Credit(sid, ref, m), transient=True)

    def bye(self, reason: str) -> None:
        self.queue.push(wire.Bye(wire.clip(reason, 255)), transient=True)

    def forget(self, ref: int) -> None:
        """Nobody waits for this any more."""
        waiting = self.ledger.get(ref)
        if waiting is not None and waiting.pull is not None and waiting.left:
            waiting.abandoned = True  # what it still brings has to be given back
        else:
            self.ledger.end(ref)

    # Inside.

    def _welcomed(self, welcome: wire.Welcome, _body: bytes, now: float) -> Event:
        self.welcome = welcome
        self._bundles = wire.BUNDLES in welcome.caps
        self.queue.batches = wire.BATCHES in welcome.caps
        self.queue.max_payload = welcome.limits.payload
        self.farewell = self.refusal = None
        standing = self.standing.again()
        self.restored = not standing
        self.standing.connected = True
        queued = {ref for out in self.queue for ref in out.ids}
        again = [
            Outgoing(wire.encode(waiting.repeat(now)), waiting.body, ref)
            for ref, waiting in self.ledger.items()
            if waiting.again is not None and ref not in queued
        ]
        # What nobody waits for any more must not happen late, and a reply belongs to its connection.
        self.queue.keep(
            lambda out: not out.transient and (out.id is None or out.id in self.ledger),
            standing + again,
        )
        return welcome

    def _dismissed(self, goodbye: wire.Goodbye, _body: bytes, _now: float) -> Event:
        self.farewell = goodbye
        return goodbye

    def _ponged(self, pong: wire.Pong, _body: bytes, _now: float) -> Event:
        self.restored = self.restored or pong.t == RESTORED
        return pong

    def _done(self, ok: wire.Ok, _body: bytes, _now: float) -> Event | None:
        together = self.durable.stored(ok)
        if not together:
            return self._settle(ok.ref, ok=ok)
        return _together([self._settle(each.ref, ok=each) for each in together])

    def _replied(self, reply: wire.ReplyDelivery, body: bytes, _now: float) -> Event | None:
        if reply.n > 1:
            bodies = enumerate(wire.split(body, reply.n), reply.ref)
            return _together([self._settle(ref, inner) for ref, inner in bodies])
        error = Refused(reply.num, reply.err, reply.msg) if reply.err else None
        if not reply.more:
            return self._settle(reply.ref, body, error)
        waiting = self.ledger.get(reply.ref)
        if waiting is None or not waiting.many:
            return None
        return Part(reply.ref, reply.sender, body, error)

    def _refused(self, error: wire.Error, _body: bytes, now: float) -> Event | None:
        if error.ref is not None and self.durable.refused(error.ref):
            return None
        waiting = None if error.ref is None else self.ledger.get(error.ref)
        if waiting is None:
            return self._refused_later(error)
        if waiting.waits_for_broker(error):
            return None
        pause = waiting.pause(error)
        if pause is None:
            return self._settle(error.ref, error=as_exception(error))
        waiting.due = now + pause
        return Postponed(pause)

    def _refused_later(self, error: wire.Error) -> Event:
        """An error to what nobody waits for: HELLO, or what was said again on a new connection."""
        withdrawn = self.standing.refused(error)
        if withdrawn is not None:
            return withdrawn
        if self.welcome is None and error.err != "hello_first":
            self.refusal = as_exception(error)
        return error

    def _top_up(self) -> None:
        if self.welcome is not None and wire.CREDIT in self.welcome.caps:
            credit = wire.Credit(m=min(self._taken, wire.MAX_WINDOW), b=self._taken_bytes)
            self.queue.push(credit, transient=True)
        self._taken = self._taken_bytes = 0

    def _ask(self, command: wire.Request, body: bytes, timeout: float, now: float) -> Waiting:
        self.queue.check_size("request", command.s, body)
        if command.to is not None:
            _check_key(command.to)
        self.queue.push(command, body, command.id)
        waiting = Waiting("request", command.s, now + timeout + DEADLINE_GRACE)
        self.ledger.add(command.id, waiting)
        return waiting

    def _settle(
        self,
        ref: int | None,
        body: bytes = b"",
        error: BusError | None = None,
        ok: wire.Ok | None = None,
    ) -> Settled | None:
        waiting = self.ledger.end(ref)
        if ref is None or waiting is None:
            return None  # gave up on it before
        if waiting.abandoned:
            if self.welcome is not None:
                self.durable.give_back(waiting)
            return None
        return Settled(ref, body, error, ok, waiting.records or ())


def _together(settled: list[Settled | None]) -> SettledTogether:
    return SettledTogether([each for each in settled if each is not None])


def _check_key(key: str) -> None:
    if len(key) != KEY_TEXT:
        raise LocalProtocolError(f"not a key in Z85 form: {key!r}")
