"""The front of the broker's core: every message comes in here, and what to do about it goes out.

The shell finds the session with `session`, feeds `handle` or, for strangers, `meet`, ticks
`handle_timer`, and afterwards writes out what it finds in `sessions.take_dirty()` (sessions with something
in their outbox), `take_strays()` (heads for connections that are no session) and `take_cuts()`
(connections to cut). HELLO comes first; everything else from an unknown connection is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bus import signals, wire
from bus.access import AccessList
from bus.errors import RemoteProtocolError
from bus.identity import to_hex
from bus.routing.peers import Connection, Session
from bus.routing.publishing import Publishing
from bus.routing.requests import Requests
from bus.routing.sessions import HEARTBEAT, LIMITS, Sessions
from bus.routing.system import System


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
        self.sessions = Sessions(access, info, clock=clock, limits=limits)
        self._save_access = save_access  # may raise OSError: then nothing has changed
        self._publishing = Publishing(self.sessions)
        self._requests = Requests(self.sessions)
        self._system = System(self.sessions, self._change_access)
        self.sessions.leaving.append(self._absent)
        self._next_sweep = 0.0  # when silent sessions are looked for
        self._decode = wire.Decoder(wire.FROM_CLIENT).decode
        self._handlers: dict[type[wire.Command], Callable[[Session, Any, bytes, float], None]] = {
            wire.Hello: self._on_hello,
            wire.Ping: self._on_ping,
            wire.Bye: self._on_bye,
            wire.Publish: self._publishing.on_publish,
            wire.Signal: self._publishing.on_signal,
            wire.Subscribe: self._publishing.on_subscribe,
            wire.Unsubscribe: self._publishing.on_unsubscribe,
            wire.Request: self._on_request,
            wire.Reply: self._requests.on_reply,
            wire.Serve: self._requests.on_serve,
            wire.Unserve: self._requests.on_unserve,
        }

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
        except RemoteProtocolError as error:
            self._offence(session, error)
            return
        try:
            self._handlers[type(command)](session, command, body if body is not None else b"", now)
        except RemoteProtocolError as error:
            self.sessions.error(session, error, getattr(command, "id", None))

    def malformed(self, session: Session, problem: str) -> None:
        """A message of a session that has not one or two frames."""
        self._offence(session, RemoteProtocolError(400, "bad_frame", problem))

    def meet(self, connection: Connection, head: bytes, body: bytes | None, now: float) -> None:
        """One message from a connection that is no session: HELLO makes it one."""
        session = self.sessions.at(connection.rid)
        if session is not None:
            # The transport now sends to the newcomer, so the old session is over in any case.
            reason = "its routing id came from another connection"
            self.sessions.close(session, 0, reason, goodbye=False)
            self.sessions.cut(session.connection)  # libzmq leaves it open, deaf and dumb
            if session.key != connection.key:
                self.sessions.denied["foreign_routing_id"] += 1
                self.sessions.cut(connection)
                return
        try:
            command = self._decode(head)
        except RemoteProtocolError as error:
            self.sessions.refuse(connection, error)
            return
        if not isinstance(command, wire.Hello):
            first = RemoteProtocolError(425, "hello_first", "say HELLO first")
            self.sessions.refuse(connection, first, cut=False)
            return
        try:
            self._welcome(connection, command, body or b"", now)
        except RemoteProtocolError as error:
            self.sessions.refuse(connection, error)

    def handle_timer(self, now: float) -> None:
        """Ends overdue requests and silent sessions."""
        self._requests.handle_timer(now)
        if now >= self._next_sweep:
            self._next_sweep = now + HEARTBEAT / 4
            for session in self.sessions.silent(now):
                self.sessions.close(session, 408, "silent for three heartbeats")

    def next_timer(self, now: float) -> float:
        """Seconds until `handle_timer` has work."""
        deadline = self._requests.next_deadline
        until = self._next_sweep if deadline is None else min(deadline, self._next_sweep)
        return max(0.0, until - now)

    def disconnected(self, inode: int) -> None:
        """The transport lost the connection whose socket had this inode."""
        for session in self.sessions:
            if session.connection.inode == inode:
                self.sessions.close(session, 0, "connection lost", goodbye=False)

    def lame(self, reason: str) -> None:
        """Say GOODBYE to everybody: the broker is stopping."""
        for session in self.sessions:
            self.sessions.close(session, 503, reason)

    def replace_access(self, access: AccessList) -> None:
        """Swap the whole list in: sessions of removed or changed keys end at once."""
        self.sessions.access = access
        for session in self.sessions:
            entry = access.get(session.key)
            if entry is None:
                self.sessions.close(session, 401, "this key is no longer allowed")
            elif entry.roles != session.roles:
                self.sessions.close(session, 403, "the roles of this key have changed")

    def _change_access(self, access: AccessList) -> None:
        self._save_access(access)
        self.replace_access(access)

    # A session's life.

    def _welcome(self, connection: Connection, hello: wire.Hello, _body: bytes, now: float) -> None:
        if len(connection.rid) != 17 or connection.rid[0] != 1:
            problem = "set a routing id of byte 0x01 and 16 random bytes before you connect"
            raise RemoteProtocolError(400, "bad_routing_id", problem)
        session = self.sessions.open(connection, hello, now)
        if len(self.sessions.of(session.key)) == 1:
            self._announce(session, "online", "")

    def _offence(self, session: Session, error: RemoteProtocolError) -> None:
        """A session that does not speak SB/1 is told why and cut."""
        self.sessions.refuse(session.connection, error, cut=False)
        self.sessions.close(session, error.code, str(error))

    def _absent(self, session: Session, _num: int, reason: str) -> None:
        if not self.sessions.of(session.key):
            self._announce(session, "offline", reason)

    def _announce(self, session: Session, state: str, reason: str) -> None:
        presence = signals.Presence(session.key, session.name, state, reason)
        subject = f"{signals.PRESENCE}.{to_hex(session.key)}"
        self._publishing.publish(self.sessions.info.key, subject, 1, signals.pack(presence))

    def _on_hello(self, _session: Session, _command: wire.Hello, _body: bytes, _now: float) -> None:
        raise RemoteProtocolError(409, "conflict", "this session has said HELLO already")

    def _on_ping(self, session: Session, command: wire.Ping, _body: bytes, _now: float) -> None:
        self.sessions.send(session, wire.encode(wire.Pong(command.t, self.sessions.info.epoch)))

    def _on_bye(self, session: Session, command: wire.Bye, _body: bytes, _now: float) -> None:
        self.sessions.close(session, 0, command.reason or "goodbye")

    def _on_request(self, session: Session, command: wire.Request, body: bytes, now: float) -> None:
        self.sessions.permit(session, "request", command.s)
        self.sessions.check_body(body)
        if command.to is None and command.s.startswith("$SYS."):
            answer = self._system.answer(command.s, body)
            head = wire.encode(wire.ReplyDelivery(command.id, self.sessions.info.key))
            self.sessions.send(session, head, answer)
        else:
            self._requests.on_request(session, command, body, now)
