"""The broker's decisions: sessions, subscriptions, services, requests, presence. No I/O, no clock.

The shell finds the session with `session`, feeds `handle` or, for strangers, `meet`, ticks
`handle_timer`, and afterwards writes out what it finds in
`take_dirty()` (sessions with something in their outbox), `take_strays()` (heads for connections that
are no session) and `take_cuts()` (connections to cut). Rules that stand here and nowhere else:

* HELLO comes first; everything else from an unknown connection is refused.
* A session belongs to one connection of one key. `user` is the proof that the transport sets on every
  frame (key and connection number); a frame with another proof ends the session.
* An outbox is bounded in messages and bytes. Deliveries over the bound follow the subscription's policy;
  anything else over the bound ends the session, because it must not be lost silently.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bus import access as rules
from bus import signals, subjects, wire
from bus.access import AccessList
from bus.errors import RemoteProtocolError
from bus.identity import to_hex
from bus.outbox import POLICIES, Budget, Drops, Outbox, Outgoing
from bus.peers import Connection, Session, Stray, Subscription
from bus.requests import Pending, Requests
from bus.system import System

HEARTBEAT = 10.0  # seconds; a session is dead after three of them in silence
MAX_SESSIONS = 256  # of one key
MAX_CACHE = 1024  # subjects remembered per session and per broker

LIMITS = wire.Limits(
    payload=1 << 20, head=wire.MAX_HEAD, batch=wire.MAX_BATCH, subscriptions=1024, inflight=1024,
    queue_messages=1 << 19, queue_bytes=64 << 20,
)  # fmt: skip


class Router:
    """One broker's state. `now` is monotonic seconds, `clock` Unix seconds."""

    def __init__(
        self,
        access: AccessList,
        info: signals.BrokerInfo,
        *,
        save_access: Callable[[AccessList], None],
        clock: Callable[[], float],
        limits: wire.Limits = LIMITS,
    ) -> None:
        self.access = access
        self.limits = limits
        self.denied: Counter[str] = Counter()  # refused acts per error, for the log
        self._info = info
        self._save_access = save_access  # may raise OSError: then nothing has changed
        self._clock = clock
        self._sessions: dict[bytes, Session] = {}  # by routing id
        self._by_key: dict[str, list[Session]] = {}  # newest last
        self._budgets: dict[str, Budget] = {}  # what the outboxes of a key's sessions share
        self._subscriptions: subjects.SubjectTree[Subscription] = subjects.SubjectTree()
        self._services: subjects.SubjectTree[Session] = subjects.SubjectTree()
        self._turn = 0  # spreads requests over the sessions that serve a subject
        self._requests = Requests(info.epoch)
        self._system = System(info, self._of_key, lambda: self.access, self._change_access)
        self._next_sweep = 0.0  # when silent sessions are looked for
        self._numbers = itertools.count(1)
        self._dirty: dict[Session, None] = {}
        self._strays: list[Stray] = []
        self._cuts: list[Connection] = []
        self._decode = wire.Decoder(wire.FROM_CLIENT).decode
        self._handlers: dict[type[wire.Command], Callable[[Session, Any, bytes, float], None]] = {
            wire.Hello: self._on_hello,
            wire.Ping: self._on_ping,
            wire.Bye: self._on_bye,
            wire.Publish: self._on_publish,
            wire.Signal: self._on_signal,
            wire.Subscribe: self._on_subscribe,
            wire.Unsubscribe: self._on_unsubscribe,
            wire.Request: self._on_request,
            wire.Reply: self._on_reply,
            wire.Serve: self._on_serve,
            wire.Unserve: self._on_unserve,
        }

    # What the shell does.

    def session(self, rid: bytes, user: str) -> Session | None:
        """The session of exactly this connection."""
        session = self._sessions.get(rid)
        return session if session is not None and session.user == user else None

    def handle(self, session: Session, head: bytes, body: bytes | None, now: float) -> None:
        """One message of a session."""
        session.heard = now
        session.messages_in += 1
        session.bytes_in += len(head) + (len(body) if body is not None else 0)
        try:
            command = self._decode(head)
        except RemoteProtocolError as error:
            self._offence(session, error)
            return
        try:
            self._handlers[type(command)](session, command, body if body is not None else b"", now)
        except RemoteProtocolError as error:
            self._error(session, error, getattr(command, "id", None))

    def malformed(self, session: Session, problem: str) -> None:
        """A message of a session that has not one or two frames."""
        self._offence(session, RemoteProtocolError(400, "bad_frame", problem))

    def meet(self, connection: Connection, head: bytes, now: float) -> None:
        """One message from a connection that is no session: HELLO makes it one."""
        session = self._sessions.get(connection.rid)
        if session is not None:
            # The transport now sends to the newcomer, so the old session is over in any case.
            reason = "its routing id came from another connection"
            self.close(session, 0, reason, goodbye=False)
            self._cuts.append(session.connection)  # libzmq leaves it open, deaf and dumb
            if session.key != connection.key:
                self.denied["foreign_routing_id"] += 1
                self._cuts.append(connection)
                return
        try:
            hello = self._decode(head)
        except RemoteProtocolError as error:
            self._refuse(connection, error)
            return
        if not isinstance(hello, wire.Hello):
            first = RemoteProtocolError(425, "hello_first", "say HELLO first")
            self._refuse(connection, first, cut=False)
        elif len(connection.rid) != 17 or connection.rid[0] != 1:
            problem = "set a routing id of byte 0x01 and 16 random bytes before you connect"
            self._refuse(connection, RemoteProtocolError(400, "bad_routing_id", problem))
        elif len(self._by_key.get(connection.key, ())) >= MAX_SESSIONS:
            problem = f"at most {MAX_SESSIONS} sessions of one key at a time"
            self._refuse(connection, RemoteProtocolError(429, "limit", problem))
        else:
            self._open(connection, hello, now)

    def handle_timer(self, now: float) -> None:
        """Ends overdue requests and silent sessions."""
        for pending in self._requests.overdue(now):
            self._fail(
                pending, RemoteProtocolError(408, "deadline", "no reply before the deadline")
            )
        if now >= self._next_sweep:
            self._next_sweep = now + HEARTBEAT / 4
            for session in [s for s in self._sessions.values() if now - s.heard > 3 * HEARTBEAT]:
                self.close(session, 408, "silent for three heartbeats")

    def next_timer(self, now: float) -> float:
        """Seconds until `handle_timer` has work."""
        deadline = self._requests.next_deadline
        until = self._next_sweep if deadline is None else min(deadline, self._next_sweep)
        return max(0.0, until - now)

    def disconnected(self, inode: int) -> None:
        """The transport lost the connection whose socket had this inode."""
        for session in [s for s in self._sessions.values() if s.connection.inode == inode]:
            self.close(session, 0, "connection lost", goodbye=False)

    def close(self, session: Session, num: int, reason: str, *, goodbye: bool = True) -> None:
        """End a session: say GOODBYE, free what it held, announce its absence."""
        if not session.open:
            return
        session.open = False
        self._sessions.pop(session.connection.rid, None)
        for subscription in session.subscriptions.values():
            self._subscriptions.remove(subscription.pattern, subscription)
        for pattern in session.served:
            self._services.remove(pattern, session)
        session.outbox.clear()
        self._dirty.pop(session, None)
        for pending in self._requests.leave(session):
            gone = f"{session.name or session.key} left before it replied"
            self._fail(pending, RemoteProtocolError(404, "not_present", gone))
        if goodbye:
            head = wire.encode(wire.Goodbye(num, wire.clip(reason, 255)))
            self._strays.append(Stray(session.connection, head, cut=True))
        self._presence_after(session, reason)

    def lame(self, reason: str) -> None:
        """Say GOODBYE to everybody: the broker is stopping."""
        for session in list(self._sessions.values()):
            self.close(session, 503, reason)

    def take_dirty(self) -> Iterable[Session]:
        if not self._dirty:
            return ()
        dirty, self._dirty = self._dirty, {}
        return dirty

    def take_strays(self) -> Sequence[Stray]:
        if not self._strays:
            return ()
        strays, self._strays = self._strays, []
        return strays

    def take_cuts(self) -> Sequence[Connection]:
        if not self._cuts:
            return ()
        cuts, self._cuts = self._cuts, []
        return cuts

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    def replace_access(self, access: AccessList) -> None:
        """Swap the whole list in: sessions of removed or changed keys end at once."""
        self.access = access
        for session in list(self._sessions.values()):
            entry = access.get(session.key)
            if entry is None:
                self.close(session, 401, "this key is no longer allowed")
            elif entry.roles != session.roles:
                self.close(session, 403, "the roles of this key have changed")

    # Sessions.

    def _open(self, connection: Connection, hello: wire.Hello, now: float) -> None:
        entry = self.access.get(connection.key)
        if entry is None:  # removed between the handshake and HELLO
            self._refuse(
                connection, RemoteProtocolError(401, "key_unknown", "this key is not allowed")
            )
            return
        session = Session(
            connection, next(self._numbers), hello.name or entry.name, entry.roles,
            rules.rights_of(entry.roles), self._clock(), now,
            Outbox(
                self.limits.queue_messages, self.limits.queue_bytes,
                self._budgets.setdefault(connection.key, Budget(2 * self.limits.queue_bytes)),
            ),
        )  # fmt: skip
        self._sessions[connection.rid] = session
        sessions = self._by_key.setdefault(session.key, [])
        sessions.append(session)
        welcome = wire.Welcome(
            session=session.number, epoch=self._info.epoch, key=session.key, roles=entry.roles,
            hb=int(HEARTBEAT * 1000), limits=self.limits, server=f"viscript {self._info.version}",
            time=int(self._clock() * 1000),
        )  # fmt: skip
        self._send(session, wire.encode(welcome))
        if len(sessions) == 1:
            self._announce(session, "online", "")

    def _refuse(
        self, connection: Connection, error: RemoteProtocolError, *, cut: bool = True
    ) -> None:
        self.denied[error.err] += 1
        head = wire.encode(wire.Error(error.code, error.err, wire.clip(str(error))))
        self._strays.append(Stray(connection, head, cut))

    def _offence(self, session: Session, error: RemoteProtocolError) -> None:
        """A session that does not speak SB/1 is told why and cut."""
        self.denied[error.err] += 1
        head = wire.encode(wire.Error(error.code, error.err, wire.clip(str(error))))
        self._strays.append(Stray(session.connection, head, cut=False))
        self.close(session, error.code, str(error))

    def _presence_after(self, session: Session, reason: str) -> None:
        sessions = self._by_key[session.key]
        sessions.remove(session)
        if not sessions:
            del self._by_key[session.key]
            del self._budgets[session.key]
            self._announce(session, "offline", reason)

    def _announce(self, session: Session, state: str, reason: str) -> None:
        presence = signals.Presence(session.key, session.name, state, reason)
        subject = f"{signals.PRESENCE}.{to_hex(session.key)}"
        self._publish(self._info.key, subject, 1, signals.pack(presence))

    # Commands.

    def _on_hello(self, _session: Session, _command: wire.Hello, _body: bytes, _now: float) -> None:
        raise RemoteProtocolError(409, "conflict", "this session has said HELLO already")

    def _on_ping(self, session: Session, command: wire.Ping, _body: bytes, _now: float) -> None:
        self._send(session, wire.encode(wire.Pong(command.t, self._info.epoch)))

    def _on_bye(self, session: Session, command: wire.Bye, _body: bytes, _now: float) -> None:
        self.close(session, 0, command.reason or "goodbye")

    def _on_publish(
        self, session: Session, command: wire.Publish, body: bytes, _now: float
    ) -> None:
        self._permit(session, "publish", command.s)
        self._check_body(body)
        self._publish(session.key, command.s, command.n, body)
        if command.id is not None:
            self._ok(session, command.id)

    def _publish(self, sender: str, subject: str, n: int, body: bytes) -> None:
        for subscription in self._subscriptions.match(subject):
            head = wire.encode(wire.Delivery(subscription.drops.sid, subject, sender, n))
            self._queue(subscription.session, Outgoing(head, body, subscription.drops, n))

    def _on_signal(self, session: Session, command: wire.Signal, body: bytes, _now: float) -> None:
        self._permit(session, "signal", command.s)
        self._check_body(body)
        recipient = self._present(command.to)
        self._send(recipient, wire.encode(wire.SignalDelivery(command.s, session.key)), body)
        if command.id is not None:
            self._ok(session, command.id)

    def _on_subscribe(
        self, session: Session, command: wire.Subscribe, _body: bytes, _now: float
    ) -> None:
        _check_pattern(command.s)
        if command.policy not in POLICIES:
            policies = ", ".join(POLICIES)
            raise RemoteProtocolError(400, "bad_policy", f"policy is one of {policies}")
        if command.sid in session.subscriptions:
            raise RemoteProtocolError(409, "conflict", f"sid {command.sid} is in use")
        self._check_room(len(session.subscriptions), "subscriptions")
        self._permit(session, "subscribe", command.s)
        subscription = Subscription(session, command.s, Drops(command.sid, command.policy))
        session.subscriptions[command.sid] = subscription
        self._subscriptions.add(command.s, subscription)
        self._ok(session, command.id)

    def _on_unsubscribe(
        self, session: Session, command: wire.Unsubscribe, _body: bytes, _now: float
    ) -> None:
        subscription = session.subscriptions.pop(command.sid, None)
        if subscription is None:
            raise RemoteProtocolError(404, "no_subscription", f"no sid {command.sid}")
        self._subscriptions.remove(subscription.pattern, subscription)
        self._ok(session, command.id)

    def _on_serve(self, session: Session, command: wire.Serve, _body: bytes, _now: float) -> None:
        _check_pattern(command.s)
        self._check_room(len(session.served), "services")
        self._permit(session, "serve", command.s)
        if command.s not in session.served:
            session.served.add(command.s)
            self._services.add(command.s, session)
        self._ok(session, command.id)

    def _on_unserve(
        self, session: Session, command: wire.Unserve, _body: bytes, _now: float
    ) -> None:
        if command.s in session.served:
            session.served.remove(command.s)
            self._services.remove(command.s, session)
        self._ok(session, command.id)

    def _on_request(self, session: Session, command: wire.Request, body: bytes, now: float) -> None:
        self._permit(session, "request", command.s)
        self._check_body(body)
        if command.to is None and command.s.startswith("$SYS."):
            answer = self._system.answer(command.s, body)
            self._send(session, wire.encode(wire.ReplyDelivery(command.id, self._info.key)), answer)
            return
        if session.inflight >= self.limits.inflight:
            raise RemoteProtocolError(
                429, "limit", f"at most {self.limits.inflight} requests at once"
            )
        worker = self._worker(command)
        handle = self._requests.open(Pending(session, command.id, worker), now + command.dl / 1000)
        delivery = wire.RequestDelivery(
            handle, command.s, session.key, command.dl, direct=command.to is not None
        )
        self._send(worker, wire.encode(delivery), body)

    def _worker(self, command: wire.Request) -> Session:
        if command.to is not None:
            return self._present(command.to)
        offers = self._services.match(command.s)
        if not offers:
            raise RemoteProtocolError(404, "no_responders", f"nobody serves {command.s}")
        self._turn += 1
        return offers[self._turn % len(offers)]

    def _on_reply(self, session: Session, command: wire.Reply, body: bytes, _now: float) -> None:
        pending = self._requests.take(command.r, session)
        if pending is None:
            problem = "no request with this handle waits for you"
            raise RemoteProtocolError(404, "no_request", problem)
        if len(body) > self.limits.payload:
            self._fail(pending, RemoteProtocolError(413, "too_large", "the reply was too large"))
            return
        problem = wire.clip(command.msg)  # ours has a key more than theirs, and must fit as well
        head = wire.encode(
            wire.ReplyDelivery(pending.ref, session.key, command.err, problem, command.num)
        )
        self._send(pending.requester, head, body)

    # Access.

    def _of_key(self, key: str | None) -> Iterable[Session]:
        return self._sessions.values() if key is None else self._by_key.get(key, [])

    def _change_access(self, access: AccessList) -> None:
        self._save_access(access)
        self.replace_access(access)

    def _permit(self, session: Session, verb: rules.Verb, pattern: str) -> None:
        allowed = session.allowed.get((verb, pattern))
        if allowed is None:
            if verb not in {"subscribe", "serve"} and not subjects.is_subject(pattern):
                raise RemoteProtocolError(400, "bad_subject", f"not a subject: {pattern!r}")
            if len(session.allowed) >= MAX_CACHE:
                session.allowed.clear()
            allowed = session.allowed[verb, pattern] = rules.may(session.rights, verb, pattern)
        if not allowed:
            roles = ", ".join(session.roles)
            raise RemoteProtocolError(
                403, "denied", f"{verb} {pattern}: not allowed to role {roles}"
            )

    def _check_room(self, held: int, what: str) -> None:
        if held >= self.limits.subscriptions:
            raise RemoteProtocolError(429, "limit", f"at most {self.limits.subscriptions} {what}")

    def _check_body(self, body: bytes) -> None:
        if len(body) > self.limits.payload:
            problem = f"body of {len(body)} bytes, at most {self.limits.payload}"
            raise RemoteProtocolError(413, "too_large", problem)

    # Sending.

    def _present(self, key: str) -> Session:
        sessions = self._by_key.get(key)
        if not sessions:
            raise RemoteProtocolError(404, "not_present", f"{key} is not on the bus")
        return sessions[-1]

    def _error(self, session: Session, error: RemoteProtocolError, ref: int | None) -> None:
        self.denied[error.err] += 1
        self._send(
            session, wire.encode(wire.Error(error.code, error.err, wire.clip(str(error)), ref))
        )

    def _fail(self, pending: Pending, error: RemoteProtocolError) -> None:
        self._error(pending.requester, error, pending.ref)

    def _ok(self, session: Session, ref: int) -> None:
        self._send(session, wire.encode(wire.Ok(ref)))

    def _send(self, session: Session, head: bytes, body: bytes | None = None) -> None:
        self._queue(session, Outgoing(head, body))

    def _queue(self, session: Session, outgoing: Outgoing) -> None:
        if not session.open:
            return
        if session.outbox.push(outgoing):
            self._dirty[session] = None
        else:
            self.denied["slow"] += 1
            self.close(session, 429, "too slow: its queue at the broker is full")


def _check_pattern(pattern: str) -> None:
    if not subjects.is_pattern(pattern):
        raise RemoteProtocolError(400, "bad_subject", f"not a pattern: {pattern!r}")
