"""A client's side of SB/1: what to send, what is waited for, when to give up. No I/O, no clock.

Shells (`client` for asyncio, `caller` for blocking programs) move messages between `next` and a socket
and act on what `receive` returns. One connection is one session: after `lost` the shell makes a new
connection, calls `opened`, and the WELCOME that follows brings back every subscription and service.
A request that had left when the connection was lost fails: nobody knows whether it was carried out.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import msgspec

from bus import wire
from bus.errors import (
    BusError,
    DeadlineExceeded,
    LocalProtocolError,
    NotAuthorised,
    NotPresent,
    Refused,
    RemoteProtocolError,
    Unreachable,
)
from bus.identity import KEY_TEXT
from bus.version import VERSION

BATCH_MESSAGES = 256
BATCH_BYTES = 32 << 10
MAX_BUFFERED = 8 << 20  # bytes of publishing that wait for the transport
DEFAULT_PAYLOAD = 1 << 20  # bytes; until WELCOME tells the broker's own limit
DEADLINE_GRACE = 0.5  # seconds that the broker's own 408 may take to reach us


class Settled(msgspec.Struct, frozen=True):
    """The command `id` came to its end: with a body, or with an error to raise."""

    id: int
    body: bytes = b""
    error: BusError | None = None


Event = wire.Command | Settled


@dataclass(slots=True)
class _Waiting:
    verb: str  # with the subject, for the error text
    subject: str
    deadline: float | None = None  # monotonic seconds
    left: bool = False  # handed to the transport

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}"


@dataclass(slots=True)
class Outgoing:
    """One message for the transport."""

    head: bytes
    body: bytes | None = None
    id: int | None = None
    transient: bool = False  # belongs to one connection and ends with it


class ClientSession:
    """One participant's protocol state over all its connections. `now` is monotonic seconds."""

    def __init__(self, name: str) -> None:
        self.welcome: wire.Welcome | None = None  # of the present connection
        self.farewell = ""  # why the broker ended the last one
        self.max_payload = DEFAULT_PAYLOAD  # bytes a body may have
        self.bytes_in = 0  # heads and bodies, over all connections
        self.bytes_out = 0
        self._hello = wire.encode(wire.Hello(name=name[:64], lang="python", ver=VERSION))
        self._handshake: Outgoing | None = None
        self._outbox: deque[Outgoing] = deque()
        self._batch: list[bytes] = []
        self._batch_subject = ""
        self._batch_bytes = 0
        self._buffered = 0
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        # Said again on every connection, by sid or subject.
        self._standing: dict[int | str, wire.Subscribe | wire.Serve] = {}
        self._heard = 0.0
        self._spoke = 0.0
        self._decode = wire.Decoder(wire.FROM_BROKER).decode

    # The connection.

    def opened(self, now: float) -> None:
        """A new connection is being made; HELLO is the first to leave on it."""
        self.welcome = None
        self._heard = self._spoke = now
        self._handshake = Outgoing(self._hello)

    def lost(self, reason: str) -> list[Settled]:
        """The connection is gone: what had left and is unanswered has failed."""
        self.welcome = None
        self._handshake = None
        self._outbox = deque(out for out in self._outbox if not out.transient)
        self._buffered = sum(map(_size, self._outbox))
        failed = [ref for ref, waiting in self._waiting.items() if waiting.left]
        return [
            Settled(ref, error=Unreachable(f"{self._waiting.pop(ref)}: {reason}, result unknown"))
            for ref in failed
        ]

    def receive(self, head: bytes, body: bytes, now: float) -> Event | None:
        """One message from the broker; `RemoteProtocolError` when it is not SB/1."""
        self._heard = now
        self.bytes_in += len(head) + len(body)
        command = self._decode(head)
        kind = type(command)
        if kind is wire.Delivery or kind is wire.RequestDelivery:
            return command
        match command:
            case wire.ReplyDelivery(ref=ref):
                error = Refused(command.num, command.err, command.msg) if command.err else None
                return self._settle(ref, body, error)
            case wire.Ok(ref):
                return self._settle(ref, body, None)
            case wire.Error(ref=ref) if ref in self._waiting:
                return self._settle(ref, b"", _as_exception(command))
            case wire.Welcome():
                self._welcomed(command)
            case wire.Goodbye(reason=reason):
                self.farewell = reason
            case _:
                pass
        return command

    @property
    def next(self) -> Outgoing | None:
        """What may leave now; the shell says `sent` once the transport has taken it."""
        if self.welcome is None:
            return self._handshake
        if not self._outbox:
            self._close_batch()
        return self._outbox[0] if self._outbox else None

    def sent(self, now: float) -> None:
        self._spoke = now
        if self.welcome is None:
            self._handshake = None
            return
        outgoing = self._outbox.popleft()
        size = _size(outgoing)
        self._buffered -= size
        self.bytes_out += size
        if outgoing.id is not None and not outgoing.transient:
            waiting = self._waiting.get(outgoing.id)
            if waiting is not None:
                waiting.left = True

    @property
    def full(self) -> bool:
        return self._buffered >= MAX_BUFFERED

    def next_timer(self, now: float) -> float:
        """Seconds until `handle_timer` has work."""
        times = [w.deadline - now for w in self._waiting.values() if w.deadline is not None]
        if self.welcome:
            times.append(self._spoke + self.welcome.hb / 1250 - now)
            times.append(self._heard + 3 * self.welcome.hb / 1000 - now)
        return max(0.0, min(times, default=10.0))

    def handle_timer(self, now: float) -> list[Settled]:
        """Fail what is overdue and keep the session alive; `Unreachable` when the broker is silent."""
        if self.welcome:
            if now - self._heard > 3 * self.welcome.hb / 1000:
                raise Unreachable("the broker has been silent for three heartbeats")
            if now - self._spoke >= self.welcome.hb / 1250:
                self._push(wire.Ping(t=0), transient=True)
        overdue = [
            i for i, w in self._waiting.items() if w.deadline is not None and w.deadline <= now
        ]
        return [
            Settled(i, error=DeadlineExceeded(f"{self._waiting.pop(i)}: no reply in time"))
            for i in overdue
        ]

    # What a participant does. Each returns the id under which `Settled` will tell how it ended.

    def request(self, subject: str, body: bytes, to: str | None, timeout: float, now: float) -> int:
        self._check_size("request", subject, body)
        if to is not None:
            _check_key(to)
        ref = next(self._ids)
        self._push(wire.Request(ref, subject, _milliseconds(timeout), to), body, ref)
        self._waiting[ref] = _Waiting("request", subject, now + timeout + DEADLINE_GRACE)
        return ref

    def signal(self, to: str, subject: str, body: bytes, timeout: float, now: float) -> int:
        self._check_size("signal", subject, body)
        _check_key(to)
        ref = next(self._ids)
        self._push(wire.Signal(to, subject, ref), body, ref)
        self._waiting[ref] = _Waiting("signal", subject, now + timeout)
        return ref

    def subscribe(self, pattern: str, policy: str) -> tuple[int, int]:
        """Returns the id and the `sid` that deliveries will carry."""
        ref, sid = next(self._ids), next(self._ids)
        self._stand(sid, wire.Subscribe(ref, sid, pattern, policy))
        return ref, sid

    def unsubscribe(self, sid: int) -> None:
        if self._standing.pop(sid, None) is not None and self.welcome is not None:
            self._push(wire.Unsubscribe(next(self._ids), sid), transient=True)

    def serve(self, subject: str) -> int:
        ref = next(self._ids)
        self._stand(subject, wire.Serve(ref, subject))
        return ref

    def withdraw(self, what: int | str) -> None:
        """Forget a subscription (by sid) or service (by subject) that the broker refused."""
        self._standing.pop(what, None)

    def reply(self, handle: int, body: bytes, refused: Refused | None = None) -> None:
        if refused is None and len(body) > self.max_payload:
            size = f"the reply of {len(body)} bytes is over the limit of {self.max_payload}"
            refused = Refused(413, "too_large", size)
        if refused is None:
            self._push(wire.Reply(handle), body, transient=True)
        else:
            err, message = wire.clip(refused.err, 64) or "refused", wire.clip(str(refused))
            self._push(wire.Reply(handle, err, message, refused.code), transient=True)

    def publish(self, subject: str, body: bytes) -> bool:
        """Queue one message; True when it completed a batch, which should leave now.

        What is queued for one subject leaves as one batch, and nothing waits for a batch to fill. The hot
        path of the bus: no call but `append` and `len`.
        """
        if subject != self._batch_subject or len(body) > BATCH_BYTES:
            self._close_batch()
            self._check_size("publish", subject, body)
        self._batch_subject = subject
        self._batch.append(body)
        self._batch_bytes += len(body)
        if len(self._batch) < BATCH_MESSAGES and self._batch_bytes < BATCH_BYTES:
            return False
        self._close_batch()
        return True

    def bye(self, reason: str) -> None:
        self._push(wire.Bye(reason), transient=True)

    def forget(self, ref: int) -> None:
        """Nobody waits for this any more."""
        self._waiting.pop(ref, None)

    # Inside.

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self.welcome = welcome
        self.max_payload = welcome.limits.payload
        self.farewell = ""
        again = [
            Outgoing(wire.encode(c), None, c.id, transient=True) for c in self._standing.values()
        ]
        # What nobody waits for any more must not happen late, and a reply belongs to its connection.
        kept = [
            out
            for out in self._outbox
            if not out.transient and (out.id is None or out.id in self._waiting)
        ]
        self._outbox = deque([*again, *kept])
        self._buffered = sum(map(_size, self._outbox))

    def _stand(self, name: int | str, command: wire.Subscribe | wire.Serve) -> None:
        self._standing[name] = command
        self._waiting[command.id] = _Waiting(type(command).__name__.lower(), command.s)
        if self.welcome is not None:
            self._push(command, ref=command.id, transient=True)

    def _settle(self, ref: int | None, body: bytes, error: BusError | None) -> Settled | None:
        if ref is None or self._waiting.pop(ref, None) is None:
            return None  # gave up on it before
        return Settled(ref, body, error)

    def _push(
        self,
        command: wire.Command,
        body: bytes | None = None,
        ref: int | None = None,
        *,
        transient: bool = False,
    ) -> None:
        outgoing = Outgoing(wire.encode(command), body, ref, transient)
        if self._batch:
            self._close_batch()
        self._outbox.append(outgoing)
        self._buffered += _size(outgoing)

    def _check_size(self, verb: str, subject: str, body: bytes) -> None:
        if len(body) > self.max_payload:
            raise LocalProtocolError(
                f"{verb} {subject}: a body of {len(body)} bytes is over the broker's limit"
                f" of {self.max_payload}"
            )

    def _close_batch(self) -> None:
        batch = self._batch
        if not batch:
            return
        n = len(batch)
        head = wire.encode(wire.Publish(self._batch_subject, n))
        outgoing = Outgoing(head, batch[0] if n == 1 else wire.join(batch))
        self._outbox.append(outgoing)
        self._buffered += _size(outgoing)
        self._batch = []
        self._batch_bytes = 0


def _check_key(key: str) -> None:
    if len(key) != KEY_TEXT:
        raise LocalProtocolError(f"not a key in Z85 form: {key!r}")


def _milliseconds(seconds: float) -> int:
    return min(max(0, int(seconds * 1000)), wire.MAX_DEADLINE)


def _size(outgoing: Outgoing) -> int:
    return len(outgoing.head) + len(outgoing.body or b"")


def _as_exception(error: wire.Error) -> BusError:
    match error.num:
        case 403:
            return NotAuthorised(error.msg)
        case 404:
            return NotPresent(error.msg)
        case 408:
            return DeadlineExceeded(error.msg)
        case _:
            return RemoteProtocolError(error.num, error.err, error.msg)
