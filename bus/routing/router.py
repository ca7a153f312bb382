"""The front of the broker's core: every message comes in here, and what to do about it goes out.

The shell finds the session with `session`, feeds `handle` or, for strangers, `meet`, ticks
`handle_timer`, and afterwards writes out what it finds in `sessions.take_dirty()` (sessions with something
in their outbox), `take_strays()` (heads for connections that are no session) and `take_cuts()`
(connections to cut). HELLO comes first; everything else from an unknown connection is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bus import signals, wire
from bus.access import AccessList
from bus.errors import RemoteProtocolError
from bus.routing.parts import Handler, Part, Question
from bus.routing.peers import Connection, Session
from bus.routing.presence import Presence
from bus.routing.publishing import Publishing
from bus.routing.requests import Requests
from bus.routing.sessions import HEARTBEAT, LIMITS, Sessions
from bus.routing.system import System

# Deals with a message of a connection that asks to be admitted; False when it does not.
Enrol = Callable[[Connection, bytes], bool]


class Router:
    """One broker's state. `now` is monotonic seconds, `clock` Unix seconds.

    Its own parts are `publishing`, `requests`, `presence` and `system`; `add` takes more.
    """

    def __init__(
        self,
        access: AccessList,
        info: signals.BrokerInfo,
        *,
        save_access: Callable[[AccessList], None],
        clock: Callable[[], float],
        limits: wire.Limits = LIMITS,
    ) -> None:
        self.sessions = Sessions(access, info, clock=clock, limits=limits)
        self.enrol: Enrol | None = None
        self._save_access = save_access  # may raise OSError: then nothing has changed
        self._draining = False
        self._next_sweep = 0.0  # when silent sessions are looked for
        self._decode = wire.Decoder(wire.FROM_CLIENT).decode
        self._parts: list[Part] = []
        self._timed: list[Part] = []
        self._handlers: dict[type[wire.Command], Handler] = {
            wire.Hello: self._on_hello,
            wire.Ping: self._on_ping,
            wire.Bundle: self._on_bundle,
            wire.Bye: self._on_bye,
            wire.Request: self._on_request,
            wire.Credit: self._on_credit,
        }
        self.publishing = Publishing(self.sessions)
        self.requests = Requests(self.sessions)
        self.presence = Presence(self.sessions, self.publishing)
        self.system = System(self.sessions, self.change_access)
        for part in (self.publishing, self.requests, self.presence, self.system):
            self.add(part)

    def add(self, part: Part) -> None:
        """Let `part` carry out its commands and answer its requests from now on."""
        self._parts.append(part)
        if type(part).next_deadline is not Part.next_deadline:
            self._timed.append(part)
        self._handlers.update(part.handlers)
        self.system.learn(part.answers)

    def session(self, rid: bytes, user: str) -> Session | None:
        """The session of exactly this connection."""
        session = self.sessions.at(rid)
        return session if session is not None and session.user == user else None

    def handle(self, session: Session, head: bytes, body: bytes | None, now: float) -> None:
        """One message of a session."""
        session.heard = now
        session.messages_in += 1
        session.bytes_in += len(head) + (len(body) if body is not None else 0)
        try:
            command = self._decode(head)
            if type(command) is wire.Bundle:
                self._open_bundle(session, command.n, body or b"", now)
                return
        except RemoteProtocolError as error:
            self._offence(session, error)
            return
        self._carry_out(session, command, body, now)

    def _open_bundle(self, session: Session, n: int, body: bytes, now: float) -> None:
        """Each message in it as if it had come by itself, until one ends the session."""
        for head, inner in wire.unpack_bundle(body, n):
            if not session.open:
                return
            self._carry_out(session, self._decode(head), inner, now)

    def _carry_out(
        self, session: Session, command: wire.Command, body: bytes | None, now: float
    ) -> None:
        handler = self._handlers.get(type(command))
        try:
            if handler is None:
                raise _unsupported(command)
            handler(session, command, body if body is not None else b"", now)
        except RemoteProtocolError as error:
            for ref in _refs(command):
                self.sessions.error(session, error, ref)

    def malformed(self, session: Session, problem: str) -> None:
        """A message of a session that has not one or two frames."""
        self._offence(session, RemoteProtocolError(400, "bad_frame", problem))

    def meet(self, connection: Connection, head: bytes, body: bytes | None, now: float) -> None:
        """One message from a connection that is no session: HELLO makes it one."""
        session = self.sessions.at(connection.rid)
        if session is not None:
            # The transport now sends to the newcomer, so the old session is over in any case.
            reason = "its routing id came from another connection"
            self.sessions.close(session, 409, reason, goodbye=False)
            self.sessions.cut(session.connection)  # libzmq leaves it open, deaf and dumb
            if session.key != connection.key:
                self.sessions.denied["foreign_routing_id"] += 1
                self.sessions.cut(connection)
                return
        if self.enrol is not None and self.enrol(connection, head):
            return
        try:
            command = self._decode(head)
        except RemoteProtocolError as error:
            self.sessions.refuse(connection, error)
            return
        try:
            if isinstance(command, wire.Hello):
                self._welcome(connection, command, body or b"", now)
            else:
                first = RemoteProtocolError(425, "hello_first", "say HELLO first")
                self.sessions.refuse(connection, first, cut=False)
        except RemoteProtocolError as error:
            self.sessions.refuse(connection, error)

    def handle_timer(self, now: float) -> None:
        """Does what is due in the parts, and ends silent sessions."""
        for part in self._timed:
            deadline = part.next_deadline
            if deadline is not None and deadline <= now:
                part.handle_timer(now)
        if now >= self._next_sweep:
            self._next_sweep = now + HEARTBEAT / 4
            for session in self.sessions.silent(now):
                self.sessions.close(session, 408, "silent for three heartbeats")

    def next_timer(self, now: float) -> float:
        """Seconds until `handle_timer` has work."""
        until = self._next_sweep
        for part in self._timed:
            deadline = part.next_deadline
            if deadline is not None and deadline < until:
                until = deadline
        return max(0.0, until - now)

    # How sessions end from outside.

    def disconnected(self, inode: int) -> None:
        """The transport lost the connection whose socket had this inode."""
        for session in self.sessions:
            if session.connection.inode == inode:
                self.lost(session)

    def lost(self, session: Session) -> None:
        """The transport lost the connection of this session."""
        self.sessions.close(session, 499, "connection lost", goodbye=False)

    def drain(self, seconds: float, reason: str, now: float) -> None:
        """Take no new sessions, requests and subscriptions, and tell so to who wants to know."""
        self._draining = True
        for command in (wire.Request, wire.Subscribe):
            self._handlers[command] = _refuse_draining
        for part in self._parts:
            part.drain(now)
        notice = wire.encode(wire.Notice(int(seconds * 1000), reason))
        for session in self.sessions:
            if wire.NOTICES in session.caps:
                self.sessions.send(session, notice)

    @property
    def drained(self) -> bool:
        """Whether nothing is under way any more that a stopping broker should wait for."""
        return not any(part.busy for part in self._parts)

    def lame(self, reason: str) -> None:
        """Say GOODBYE to everybody: the broker is stopping."""
        for session in self.sessions:
            self.sessions.close(session, 503, reason)

    def replace_access(self, access: AccessList) -> None:
        """Swap the whole list in; whoever is on the bus is measured by it at once.

        A session of a removed key is cut without a word. One whose rights have changed lives on with the
        new ones; the parts take from it what it may no longer have.
        """
        self.sessions.access = access
        for session in self.sessions:
            entry = access.get(session.key)
            if entry is None:
                self._revoke(session)
            elif session.entry != entry:
                self.sessions.change_rights(session, entry)

    def change_access(self, access: AccessList) -> None:
        """Save and swap in; `OSError` when it cannot be saved, and then nothing has changed."""
        self._save_access(access)
        self.replace_access(access)

    def _revoke(self, session: Session) -> None:
        reason = "this key is no longer allowed"
        self.presence.note("revoked", session, 401, reason)
        self.sessions.close(session, 401, reason, goodbye=False)
        self.sessions.cut(session.connection)

    # A session's life.

    def _welcome(self, connection: Connection, hello: wire.Hello, body: bytes, now: float) -> None:
        if len(connection.rid) != 17 or connection.rid[0] != 1:
            problem = "set a routing id of byte 0x01 and 16 random bytes before you connect"
            raise RemoteProtocolError(400, "bad_routing_id", problem)
        if self._draining:
            raise _draining()
        self.presence.arrived(self.sessions.open(connection, hello, body, now))

    def _offence(self, session: Session, error: RemoteProtocolError) -> None:
        """A session that does not speak SB/1 is told why and cut."""
        self.sessions.refuse(session.connection, error, cut=False)
        self.sessions.close(session, error.code, str(error))

    def _on_hello(self, _session: Session, _command: wire.Hello, _body: bytes, _now: float) -> None:
        raise RemoteProtocolError(409, "conflict", "this session has said HELLO already")

    def _on_bundle(
        self, _session: Session, _command: wire.Bundle, _body: bytes, _now: float
    ) -> None:
        raise RemoteProtocolError(400, "bad_request", "a bundle must not be in a bundle")

    def _on_ping(self, session: Session, command: wire.Ping, _body: bytes, _now: float) -> None:
        self.sessions.send(session, wire.encode(wire.Pong(command.t, self.sessions.info.epoch)))

    def _on_bye(self, session: Session, command: wire.Bye, _body: bytes, _now: float) -> None:
        session.will = None
        self.sessions.close(session, 0, command.reason or "goodbye")

    def _on_request(self, session: Session, command: wire.Request, body: bytes, now: float) -> None:
        self.sessions.permit(session, "request", command.s)
        self.sessions.check_body(body)
        if command.n > 1:
            self.requests.on_batch(session, command, body, now)
        elif command.to is None and command.s.startswith("$SYS."):
            self.system.ask(command.s, Question(session, command.id, body, now))
        else:
            self.requests.on_request(session, command, body, now)

    def _on_credit(self, session: Session, command: wire.Credit, body: bytes, now: float) -> None:
        if command.sid is not None and command.ref is not None:
            raise RemoteProtocolError(400, "bad_request", "CREDIT: sid and ref exclude each other")
        if command.ref is not None:
            self.requests.on_credit(session, command, body, now)
        elif command.sid is not None:
            self.publishing.on_credit(session, command.sid, command.m)
        else:
            self.sessions.grant(session, command.m, command.b)


def _refs(command: wire.Command) -> Sequence[int | None]:
    """What an error upon the command refers to: for a batch of requests, each."""
    if isinstance(command, wire.Request):
        return range(command.id, min(command.id + command.n - 1, wire.MAX_ID) + 1)
    return (getattr(command, "id", None),)


def _unsupported(command: wire.Command) -> RemoteProtocolError:
    name = type(command).__name__.upper()
    return RemoteProtocolError(501, "unsupported", f"{name}: not carried out here")


def _draining() -> RemoteProtocolError:
    return RemoteProtocolError(503, "draining", "the broker is stopping: connect again later")


def _refuse_draining(_session: Session, _command: wire.Command, _body: bytes, _now: float) -> None:
    raise _draining()
