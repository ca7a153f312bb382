"""Who is there and what waits to be written to them: the table that every part of the router works on.

* A session belongs to one connection of one key. `user` is the proof that the transport sets on every
  frame (key and connection number); a frame with another proof ends the session.
* An outbox is bounded in messages and bytes. Deliveries over the bound follow the subscription's policy;
  anything else over the bound ends the session, because it must not be lost silently.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from bus import access as rules
from bus import signals, subjects, wire
from bus.access import AccessList
from bus.errors import RemoteProtocolError
from bus.routing.outbox import Budget, Outbox, Outgoing
from bus.routing.peers import Connection, Session, Stray

HEARTBEAT = 10.0  # seconds; a session is dead after three of them in silence
MAX_SESSIONS = 256  # of one key
MAX_CACHE = 1024  # permissions remembered per session

LIMITS = wire.Limits(
    payload=1 << 20, head=wire.MAX_HEAD, batch=wire.MAX_BATCH, subscriptions=1024, inflight=1024,
    queue_messages=1 << 19, queue_bytes=64 << 20,
)  # fmt: skip

# Called when a session has ended: it, the number and the reason of its GOODBYE.
Leaving = Callable[[Session, int, str], None]


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
        self._by_rid: dict[bytes, Session] = {}
        self._by_key: dict[str, list[Session]] = {}  # newest last
        self._budgets: dict[str, Budget] = {}  # what the outboxes of a key's sessions share
        self._numbers = itertools.count(1)
        self._dirty: dict[Session, None] = {}
        self._strays: list[Stray] = []
        self._cuts: list[Connection] = []

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

    def open(self, connection: Connection, hello: wire.Hello, now: float) -> Session:
        """Make the connection a session and welcome it; `RemoteProtocolError` when it cannot be one."""
        entry = self.access.get(connection.key)
        if entry is None:  # removed between the handshake and HELLO
            raise RemoteProtocolError(401, "key_unknown", "this key is not allowed")
        if len(self.of(connection.key)) >= MAX_SESSIONS:
            problem = f"at most {MAX_SESSIONS} sessions of one key at a time"
            raise RemoteProtocolError(429, "limit", problem)
        session = Session(
            connection, next(self._numbers), hello.name or entry.name, entry.roles,
            rules.rights_for(entry), self.clock(), now,
            Outbox(
                self.limits.queue_messages, self.limits.queue_bytes,
                self._budgets.setdefault(connection.key, Budget(2 * self.limits.queue_bytes)),
            ),
            caps=frozenset(hello.caps) & frozenset(wire.CAPS), lang=hello.lang, ver=hello.ver,
        )  # fmt: skip
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
        self._dirty.pop(session, None)
        sessions = self._by_key[session.key]
        sessions.remove(session)
        if not sessions:
            del self._by_key[session.key]
            del self._budgets[session.key]
        if goodbye:
            head = wire.encode(wire.Goodbye(num, wire.clip(reason, 255)))
            self._strays.append(Stray(session.connection, head, cut=True))
        for leave in self.leaving:
            leave(session, num, reason)

    def refuse(
        self, connection: Connection, error: RemoteProtocolError, *, cut: bool = True
    ) -> None:
        """Tell a connection that is no session why its message was refused."""
        self.denied[error.err] += 1
        head = wire.encode(wire.Error(error.code, error.err, wire.clip(str(error))))
        self._strays.append(Stray(connection, head, cut))

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
        self.send(
            session, wire.encode(wire.Error(error.code, error.err, wire.clip(str(error)), ref))
        )

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

    def wake(self, session: Session) -> None:
        """There may be something to write again: the session was granted credit."""
        if session.open:
            self._dirty[session] = None

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
