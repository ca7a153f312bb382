"""Who is there and what waits to be written to them: the table that every part of the router works on.

* A session belongs to one connection of one key. `user` is the proof that the transport sets on every
  frame (key and connection number); a frame with another proof ends the session.
* An outbox is bounded in messages and bytes. Deliveries over the bound follow the subscription's policy;
  anything else over the bound ends the session, because it must not be lost silently.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from bus import access as rules
from bus import signals, subjects, wire
from bus.access import AccessList
from bus.errors import RemoteProtocolError
from bus.routing.outbox import Budget, CreditedOutbox, Outbox, Outgoing
from bus.routing.peers import Connection, Session, Stray, Will
from bus.signals import AccessEntry

HEARTBEAT = 10.0  # seconds; a session is dead after three of them in silence
MAX_SESSIONS = 256  # of one key
MAX_CACHE = 1024  # permissions remembered per session
MAX_WILL = 64 << 10  # bytes of the body of a will

LIMITS = wire.Limits(
    payload=1 << 20, head=wire.MAX_HEAD, batch=wire.MAX_BATCH, subscriptions=1024, inflight=1024,
    queue_messages=1 << 19, queue_bytes=64 << 20,
    sessions=MAX_SESSIONS, will=MAX_WILL, group_messages=1 << 16, group_bytes=16 << 20,
)  # fmt: skip

# Called when a session has ended: it, the number and the reason of its GOODBYE.
Leaving = Callable[[Session, int, str], None]
# Hears what happened to a session: one of `signals.EVENTS`, it, a number and a reason as in GOODBYE.
Note = Callable[[str, Session, int, str], None]


class Sessions:
    """The sessions of one broker. `clock` is Unix seconds, `now` monotonic seconds."""

    def __init__(
        self,
        access: AccessList,
        info: signals.BrokerInfo,
        *,
        clock: Callable[[], float],
        limits: wire.Limits,
    ) -> None:
        self.access = access
        self.info = info
        self.limits = limits
        self.clock = clock
        self.denied: Counter[str] = Counter()  # refused acts per error, for the log
        self.leaving: list[Leaving] = []
        self.changed: list[Callable[[Session], None]] = []  # its rights are others now
        self.granted: list[Callable[[Session], None]] = []  # deliveries to it may leave again
        self.note: Note = lambda _what, _session, _num, _reason: None
        self._by_rid: dict[bytes, Session] = {}
        self._by_key: dict[str, list[Session]] = {}  # newest last
        self._budgets: dict[str, Budget] = {}  # what the outboxes of a key's sessions share
        self._numbers = itertools.count(1)
        self._dirty: dict[Session, None] = {}
        self._strays: list[Stray] = []
        self._cuts: list[Connection] = []
        self._ending: deque[tuple[Session, int, str]] = deque()  # those whose leaving is to be told

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_rid.values()))

    def __len__(self) -> int:
        return len(self._by_rid)

    def at(self, rid: bytes) -> Session | None:
        """The session whose connection has this routing id, whoever proved it."""
        return self._by_rid.get(rid)

    def of(self, key: str) -> Sequence[Session]:
        """The sessions of a key, the newest last."""
        return self._by_key.get(key, ())

    def present(self, key: str) -> Session:
        """The newest session of a key; 404 when there is none."""
        sessions = self._by_key.get(key)
        if not sessions:
            raise RemoteProtocolError(404, "not_present", f"{key} is not on the bus")
        return sessions[-1]

    # Coming and going.

    def open(self, connection: Connection, hello: wire.Hello, body: bytes, now: float) -> Session:
        """Make the connection a session and welcome it; `RemoteProtocolError` when it cannot be one."""
        entry = self.access.get(connection.key)
        if entry is None:  # removed between the handshake and HELLO
            raise RemoteProtocolError(401, "key_unknown", "this key is not allowed")
        if len(self.of(connection.key)) >= self.limits.sessions:
            problem = f"at most {self.limits.sessions} sessions of one key at a time"
            raise RemoteProtocolError(429, "limit", problem)
        budget = self._budgets.get(connection.key) or Budget(2 * self.limits.queue_bytes)
        session = Session(
            connection, next(self._numbers), hello.name or entry.name, entry,
            rules.rights_for(entry), self.clock(), now, self._outbox(hello.credit, budget),
            caps=frozenset(hello.caps) & frozenset(wire.CAPS), lang=hello.lang, ver=hello.ver,
        )  # fmt: skip
        if hello.will is not None:
            self._accept_will(session, Will(hello.will, body))
        session.outbox.on_loss = lambda lost: self._note_loss(session, lost)
        self._budgets[session.key] = budget
        self._by_rid[connection.rid] = session
        self._by_key.setdefault(session.key, []).append(session)
        welcome = wire.Welcome(
            session=session.number, epoch=self.info.epoch, key=session.key, roles=entry.roles,
            hb=int(HEARTBEAT * 1000), limits=self.limits, server=f"viscript {self.info.version}",
            time=int(self.clock() * 1000), caps=[cap for cap in hello.caps if cap in wire.CAPS],
        )  # fmt: skip
        self.send(session, wire.encode(welcome))
        return session

    def close(self, session: Session, num: int, reason: str, *, goodbye: bool = True) -> None:
        """End a session: say GOODBYE, free what it held, tell those who listen to `leaving`."""
        if not session.open:
            return
        session.open = False
        self._by_rid.pop(session.connection.rid, None)
        session.outbox.clear()
        session.parcel = None
        self._dirty.pop(session, None)
        sessions = self._by_key[session.key]
        sessions.remove(session)
        if not sessions:
            del self._by_key[session.key]
            del self._budgets[session.key]
        if goodbye:
            head = wire.encode(wire.Goodbye(num, wire.clip(reason, 255)))
            self._strays.append(Stray(session.connection, head, cut=True))
        # What is told may end others, whose end is told, ...: one after the other, never one in another.
        self._ending.append((session, num, reason))
        if len(self._ending) == 1:
            while self._ending:
                for leave in self.leaving:
                    leave(*self._ending[0])
                self._ending.popleft()

    def _outbox(self, credit: wire.Grant | None, budget: Budget) -> Outbox:
        limits = self.limits
        if credit is None:
            return Outbox(limits.queue_messages, limits.queue_bytes, budget)
        return CreditedOutbox(credit, limits.queue_messages, limits.queue_bytes, budget)

    def _note_loss(self, session: Session, lost: int) -> None:
        self.note("slow", session, 429, f"{lost} messages were dropped")

    def _accept_will(self, session: Session, will: Will) -> None:
        self.permit(session, "publish", will.subject)
        if len(will.body) > self.limits.will:
            problem = f"will of {len(will.body)} bytes, at most {self.limits.will}"
            raise RemoteProtocolError(413, "too_large", problem)
        session.will = will

    def refuse(
        self,
        connection: Connection,
        error: RemoteProtocolError,
        *,
        ref: int | None = None,
        cut: bool = True,
    ) -> None:
        """Tell a connection that is no session why its message was refused."""
        self.denied[error.err] += 1
        head = wire.encode(wire.Error(error.code, error.err, wire.clip(str(error)), ref))
        self._strays.append(Stray(connection, head, cut))

    def dismiss(self, connection: Connection, head: bytes) -> None:
        """Tell a connection that is no session one thing, and cut it."""
        self._strays.append(Stray(connection, head, cut=True))

    def cut(self, connection: Connection) -> None:
        self._cuts.append(connection)

    def silent(self, now: float) -> list[Session]:
        """Those of whom nothing was heard for three heartbeats."""
        return [s for s in self._by_rid.values() if now - s.heard > 3 * HEARTBEAT]

    # What a session may do.

    def permit(self, session: Session, verb: rules.Verb, pattern: str) -> None:
        """`RemoteProtocolError` 400 or 403 unless the session may."""
        allowed = session.allowed.get((verb, pattern))
        if allowed is None:
            if verb not in {"subscribe", "serve"} and not subjects.is_subject(pattern):
                raise RemoteProtocolError(400, "bad_subject", f"not a subject: {pattern!r}")
            if len(session.allowed) >= MAX_CACHE:
                session.allowed.clear()
            allowed = session.allowed[verb, pattern] = rules.may(session.rights, verb, pattern)
        if not allowed:
            whom = f"role {', '.join(session.roles)}" if session.roles else "this key"
            raise RemoteProtocolError(403, "denied", f"{verb} {pattern}: not allowed to {whom}")

    def still_may(self, session: Session, verb: rules.Verb, pattern: str) -> bool:
        """Whether what was permitted once still is."""
        return rules.may(session.rights, verb, pattern)

    def change_rights(self, session: Session, entry: AccessEntry) -> None:
        """Measure a session by another entry of the access list; `changed` takes away what it lost."""
        session.entry = entry
        session.rights = rules.rights_for(entry)
        session.allowed.clear()
        for check in self.changed:
            if session.open:
                check(session)

    def end(self, session: Session, subject: str, sid: int | None) -> None:
        """Tell that a subscription, or without `sid` a service, was taken away by `change_rights`."""
        reason = "the rights of this key have changed"
        if wire.NOTICES in session.caps:
            self.send(session, wire.encode(wire.Ended(403, subject, sid, reason)))
        else:
            self.close(session, 403, reason)

    def check_room(self, held: int, what: str) -> None:
        if held >= self.limits.subscriptions:
            raise RemoteProtocolError(429, "limit", f"at most {self.limits.subscriptions} {what}")

    def check_body(self, body: bytes) -> None:
        if len(body) > self.limits.payload:
            problem = f"body of {len(body)} bytes, at most {self.limits.payload}"
            raise RemoteProtocolError(413, "too_large", problem)

    # Sending.

    def ok(self, session: Session, ref: int) -> None:
        self.send(session, wire.encode(wire.Ok(ref)))

    def error(self, session: Session, error: RemoteProtocolError, ref: int | None) -> None:
        self.denied[error.err] += 1
        if error.code == 403:
            self.note("denied", session, 403, str(error))
        self.send(
            session, wire.encode(wire.Error(error.code, error.err, wire.clip(str(error)), ref))
        )

    def answer(self, session: Session, ref: int, value: object) -> None:
        """The broker's own reply to a request, one of `bus.signals`; an error when it is too large."""
        body = signals.pack(value)
        if len(body) > self.limits.payload:
            problem = f"an answer of {len(body)} bytes, at most {self.limits.payload}; ask for less"
            self.error(session, RemoteProtocolError(413, "too_large", problem), ref)
            return
        self.send(session, wire.encode(wire.ReplyDelivery(ref, self.info.key)), body)

    def send(self, session: Session, head: bytes, body: bytes | None = None) -> None:
        """What must arrive or end the session."""
        self.queue(session, Outgoing(head, body))

    def queue(self, session: Session, outgoing: Outgoing) -> None:
        if not session.open:
            return
        if session.outbox.push(outgoing):
            self._dirty[session] = None
        else:
            self.denied["slow"] += 1
            self.close(session, 429, "too slow: its queue at the broker is full")

    def grant(self, session: Session, messages: int, size: int) -> None:
        """More leave for deliveries to a session; 400 when it did not ask for them to be counted."""
        if not isinstance(session.outbox, CreditedOutbox):
            problem = (
                "CREDIT: this session's HELLO named no credit, so its deliveries are not counted"
            )
            raise RemoteProtocolError(400, "bad_request", problem)
        had_credit = session.outbox.has_credit
        session.outbox.grant(messages, size)
        self._dirty[session] = None
        if not had_credit:
            for serve in self.granted:
                serve(session)

    # For the shell.

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
