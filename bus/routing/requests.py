"""REQUEST, REPLY, SERVE, UNSERVE: who is asked, and whose answer it is."""

from __future__ import annotations

from bus import subjects, wire
from bus.errors import RemoteProtocolError
from bus.routing.handles import Handles, Pending
from bus.routing.peers import Session
from bus.routing.publishing import check_pattern
from bus.routing.sessions import Sessions


class Requests:
    """The services of one broker and the requests that wait for a reply."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._services: subjects.SubjectTree[Session] = subjects.SubjectTree()
        self._turn = 0  # spreads requests over the sessions that serve a subject
        self._handles = Handles(sessions.info.epoch)
        sessions.leaving.append(self._leave)

    @property
    def next_deadline(self) -> float | None:
        return self._handles.next_deadline

    def handle_timer(self, now: float) -> None:
        """End overdue requests."""
        for pending in self._handles.overdue(now):
            overdue = RemoteProtocolError(408, "deadline", "no reply before the deadline")
            self._fail(pending, overdue)

    def on_serve(self, session: Session, command: wire.Serve, _body: bytes, _now: float) -> None:
        check_pattern(command.s)
        self._sessions.check_room(len(session.served), "services")
        self._sessions.permit(session, "serve", command.s)
        if command.s not in session.served:
            session.served.add(command.s)
            self._services.add(command.s, session)
        self._sessions.ok(session, command.id)

    def on_unserve(
        self, session: Session, command: wire.Unserve, _body: bytes, _now: float
    ) -> None:
        if command.s in session.served:
            session.served.remove(command.s)
            self._services.remove(command.s, session)
        self._sessions.ok(session, command.id)

    def on_request(self, session: Session, command: wire.Request, body: bytes, now: float) -> None:
        """A request to a participant or a service; those to the broker itself go to `system`."""
        limit = self._sessions.limits.inflight
        if session.inflight >= limit:
            raise RemoteProtocolError(429, "limit", f"at most {limit} requests at once")
        worker = self._worker(command)
        handle = self._handles.open(Pending(session, command.id, worker), now + command.dl / 1000)
        delivery = wire.RequestDelivery(
            handle, command.s, session.key, command.dl, direct=command.to is not None
        )
        self._sessions.send(worker, wire.encode(delivery), body)

    def on_reply(self, session: Session, command: wire.Reply, body: bytes, _now: float) -> None:
        pending = self._handles.take(command.r, session)
        if pending is None:
            problem = "no request with this handle waits for you"
            raise RemoteProtocolError(404, "no_request", problem)
        if len(body) > self._sessions.limits.payload:
            self._fail(pending, RemoteProtocolError(413, "too_large", "the reply was too large"))
            return
        problem = wire.clip(command.msg)  # ours has a key more than theirs, and must fit as well
        head = wire.encode(
            wire.ReplyDelivery(pending.ref, session.key, command.err, problem, command.num)
        )
        self._sessions.send(pending.requester, head, body)

    def _worker(self, command: wire.Request) -> Session:
        if command.to is not None:
            return self._sessions.present(command.to)
        offers = self._services.match(command.s)
        if not offers:
            raise RemoteProtocolError(404, "no_responders", f"nobody serves {command.s}")
        self._turn += 1
        return offers[self._turn % len(offers)]

    def _leave(self, session: Session, _num: int, _reason: str) -> None:
        for pattern in session.served:
            self._services.remove(pattern, session)
        for pending in self._handles.leave(session):
            gone = f"{session.name or session.key} left before it replied"
            self._fail(pending, RemoteProtocolError(404, "not_present", gone))

    def _fail(self, pending: Pending, error: RemoteProtocolError) -> None:
        self._sessions.error(pending.requester, error, pending.ref)
