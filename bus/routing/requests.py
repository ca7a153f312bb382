"""REQUEST, REPLY, SERVE, UNSERVE, CANCEL, CREDIT for a reply: who is asked, and whose answer it is."""

from __future__ import annotations

from collections.abc import Mapping

from bus import signals, wire
from bus.errors import RemoteProtocolError
from bus.routing import pages
from bus.routing.catalogue import placed
from bus.routing.errands import COST, Errands
from bus.routing.handles import ONE_REPLY, Batch, Desk, Errand, Promise, Repeat, Round
from bus.routing.parts import Answer, Handler, Part, Question
from bus.routing.peers import Session
from bus.routing.publishing import check_pattern
from bus.routing.replies import Kept, Replies
from bus.routing.sessions import Sessions


class Requests(Part):
    """The services of one broker and the requests that wait for a reply."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._errands = Errands(sessions)
        self._replies = Replies()
        self._now = 0.0  # when something was heard last
        sessions.leaving.append(self._leave)
        sessions.changed.append(self._recheck)

    @property
    def handlers(self) -> Mapping[type[wire.Command], Handler]:
        return {
            wire.Reply: self.on_reply,
            wire.Serve: self.on_serve,
            wire.Unserve: self.on_unserve,
            wire.Cancel: self.on_cancel,
        }

    @property
    def answers(self) -> Mapping[str, Answer]:
        return {signals.SERVICES: self._list_services}

    @property
    def busy(self) -> bool:
        """Whether a reply is waited for."""
        return len(self._errands.handles) > 0

    @property
    def next_deadline(self) -> float | None:
        if self._errands.freed or self._errands.orphans:
            return self._now
        asked, kept = self._errands.handles.next_deadline, self._replies.next_deadline
        if asked is None or kept is None:
            return kept if asked is None else asked
        return min(asked, kept)

    def handle_timer(self, now: float) -> None:
        """End what is overdue, forget replies that were kept long enough."""
        self._now = now
        self._replies.expire(now)
        errands = self._errands
        for due in errands.handles.overdue(now):
            if due.over:  # together with one before it
                continue
            if isinstance(due, Promise):
                errands.drop(due, now, failed=True)
                continue
            errands.end(due, now, failed=True)
            if isinstance(due, Round):
                errands.send_last(due)
            else:
                errands.tell(
                    due, RemoteProtocolError(408, "deadline", "no reply before the deadline")
                )
        errands.settle(now)

    def services(self) -> signals.Services:
        """Who offers what, with what became of the requests; as many as one answer can tell."""
        return self._services(signals.PageQuery())

    def _list_services(self, question: Question) -> object:
        return self._services(pages.asked(question.body, signals.PageQuery))

    def _services(self, query: signals.PageQuery) -> signals.Services:
        offers = placed(self._errands.desks.values())
        return signals.Services(*pages.page(offers, query, self._sessions.limits.payload))

    # Offering.

    def on_serve(self, session: Session, command: wire.Serve, _body: bytes, now: float) -> None:
        check_pattern(command.s)
        desk = self._errands.desk(session)
        offer = desk.offers.get(command.s)
        if offer is None:
            self._sessions.check_room(len(desk.offers), "services")
        self._sessions.permit(session, "serve", command.s)
        if offer is None:
            offer = self._errands.offers.add(desk, command.s)
            session.served.add(command.s)
        offer.name, offer.ver, offer.desc = command.name, command.ver, command.desc
        offer.limit = command.inflight
        self._sessions.ok(session, command.id)
        self._errands.refill(offer, now)

    def on_unserve(self, session: Session, command: wire.Unserve, _body: bytes, now: float) -> None:
        self._withdraw(session, command.s, now)
        self._sessions.ok(session, command.id)

    def _withdraw(self, session: Session, pattern: str, now: float) -> None:
        desk = self._errands.desks.get(session)
        offer = desk.offers.get(pattern) if desk is not None else None
        if offer is not None:
            session.served.remove(pattern)
            self._errands.withdraw(offer, now)

    def _recheck(self, session: Session) -> None:
        """Its rights have changed: take away what it may no longer serve, end what it may not ask."""
        for pattern in sorted(session.served):
            if not self._sessions.still_may(session, "serve", pattern):
                self._withdraw(session, pattern, self._now)
                self._sessions.end(session, pattern, None)
        desk = self._errands.desks.get(session)
        if desk is not None:
            self._errands.handles.take_all_apart(desk)
        for call in list(desk.calls.values()) if desk is not None else ():
            if not call.over and not self._sessions.still_may(session, "request", call.subject):
                self._errands.end(call, self._now)
                problem = f"request {call.subject}: not allowed any more"
                self._errands.tell(call, RemoteProtocolError(403, "denied", problem))

    # Asking.

    def on_request(self, session: Session, command: wire.Request, body: bytes, now: float) -> None:
        """A request to a participant or a service; those to the broker itself go to `system`."""
        self._now = now
        errands = self._errands
        if errands.freed or errands.orphans:
            errands.settle(now)
        desk = errands.desks.get(session) or errands.desk(session)
        limit = self._sessions.limits.inflight
        if len(desk.calls) >= limit:
            raise RemoteProtocolError(429, "limit", f"at most {limit} requests at once")
        if command.id in desk.calls:
            raise RemoteProtocolError(409, "conflict", f"request {command.id} is not answered yet")
        deadline = now + command.dl / 1000
        if command.all or command.idem:
            _check_exclusions(command)
            if command.all:
                self._ask_all(Round(desk, command.id, command.s, deadline), body, now)
            else:
                self._ask_once(desk, command, deadline, body, now)
            return
        window = command.stream or ONE_REPLY
        errand = Errand(desk, command.id, command.s, deadline, command.to, window)
        worker, offer = errands.choose(errand)
        if worker is None:
            errands.hold(errand, body)
        errands.handles.open(errand)
        if worker is not None and (offer is None or not offer.limit):  # `place`, for most of them
            errands.deliver(errand, worker, offer, body, now)
        else:
            errands.place(errand, worker, offer, body, now)

    def on_batch(self, session: Session, command: wire.Request, body: bytes, now: float) -> None:
        """A REQUEST with `n`: so many requests, each of which is answered or refused by itself."""
        bodies = _take_apart(command, body)
        if self._ask_together(session, command, body, now):
            return
        for ref, inner in enumerate(bodies, command.id):
            try:
                self.on_request(session, wire.Request(ref, command.s, command.dl), inner, now)
            except RemoteProtocolError as error:
                self._sessions.error(session, error, ref)

    def _ask_together(
        self, session: Session, command: wire.Request, body: bytes, now: float
    ) -> bool:
        """Hand a batch to a worker as it is; False where one request may fare unlike another."""
        errands, n = self._errands, command.n
        if errands.freed or errands.orphans:
            errands.settle(now)
        offer = errands.offers.sole(command.s)
        if offer is None or wire.BATCHES not in session.caps & offer.desk.session.caps:
            return False
        desk = errands.desks.get(session) or errands.desk(session)
        full = len(desk.calls) + n > self._sessions.limits.inflight
        if full or not desk.calls.keys().isdisjoint(range(command.id, command.id + n)):
            return False
        self._now = now
        batch = Batch(desk, command.id, command.s, now + command.dl / 1000, n)
        errands.handles.open(batch, n)
        errands.deliver_batch(batch, offer, body, now)
        return True

    def _ask_all(self, call: Round, body: bytes, now: float) -> None:
        """Ask each who has room now, the others when they have."""
        errands = self._errands
        offers = errands.offers.everybody(call.subject)
        call.held = len(body) + COST * len(offers)
        errands.holdings.hold(call.caller.session.key, call.held)
        errands.handles.open(call)
        asked = [
            Errand(call.caller, call.ref, call.subject, call.deadline, owner=call) for _ in offers
        ]
        call.errands = dict.fromkeys(asked)
        for errand, offer in zip(asked, offers, strict=True):
            if errand not in call.errands:  # the caller has just left
                continue
            if not offer.desk.open:
                errands.answered(call, errand)
            elif offer.has_room and errands.keeps_up(offer.desk.session):
                errands.deliver(errand, offer.desk, offer, body, now)
            elif errands.offers.wait_for(errand, offer):
                errand.body = body
            else:
                errands.answered(call, errand)

    def _ask_once(
        self, desk: Desk, command: wire.Request, deadline: float, body: bytes, now: float
    ) -> None:
        """Give the reply that was kept, or wait with others for the one that is coming, or ask."""
        errands = self._errands
        identity = desk.session.key, command.s, command.to, command.idem
        kept = self._replies.find(identity, now)
        if kept is not None:
            self._sessions.send(desk.session, _encode(command.id, kept), kept.body)
            return
        promise = errands.promised.get(identity)
        if promise is not None:
            errands.join(promise, Repeat(desk, command.id, deadline, promise))
            return
        errand = Errand(desk, command.id, command.s, deadline, command.to)
        worker, offer = errands.choose(errand)
        errands.hold(errand, body)
        promise = errand.owner = errands.promised[identity] = Promise(identity, errand)
        errands.join(promise, Repeat(desk, command.id, deadline, promise))
        errands.handles.remind(promise)
        errands.place(errand, worker, offer, body, now)

    def on_cancel(self, session: Session, command: wire.Cancel, _body: bytes, now: float) -> None:
        desk = self._errands.desks.get(session)
        call = desk.calls.get(command.ref) if desk is not None else None
        if desk is not None and isinstance(call, Batch):
            self._errands.handles.take_apart(call)
            call = desk.calls[command.ref]
        if call is not None:
            self._errands.end(call, now)
            self._errands.settle(now)

    # Answering.

    def on_reply(self, session: Session, command: wire.Reply, body: bytes, now: float) -> None:
        self._now = now
        errands = self._errands
        desk = errands.desks.get(session)
        errand = desk.errands.get(command.r) if desk is not None else None
        if command.n > 1:
            self._on_replies(session, command, body, errand, now)
            return
        if type(errand) is Batch and desk is not None:
            if command == wire.Reply(command.r) and len(body) <= self._sessions.limits.payload:
                self._answer_together(session, errand, command, body, now)
                return
            errands.handles.take_apart(errand)
            errand = desk.errands[command.r]
        if errand is None:
            problem = "no request with this handle waits for you"
            raise RemoteProtocolError(404, "no_request", problem)
        if command.more and not command.err:
            self._on_chunk(session, errand, body, now)
            return
        if len(body) > self._sessions.limits.payload:
            too_large = RemoteProtocolError(413, "too_large", "the reply was too large")
            errands.spoil(errand, too_large, now)
            errands.settle(now)
            return
        offer = errand.offer
        errands.release(errand, now, failed=command.err != "")
        # Ours has a key more than theirs, and must fit as well.
        problem = wire.clip(command.msg) if command.msg else ""
        if errand.owner is None:
            errands.handles.close(errand)
            reply = wire.ReplyDelivery(errand.ref, session.key, command.err, problem, command.num)
            self._sessions.send(errand.caller.session, wire.encode(reply), body)
        else:
            kept = Kept(session.key, command.err, problem, command.num, body)
            self._answer_owner(errand, errand.owner, kept, now)
        if offer is not None and offer.limit:
            errands.refill(offer, now)

    def _on_replies(
        self, session: Session, command: wire.Reply, body: bytes, first: Errand | None, now: float
    ) -> None:
        """A REPLY with `n`: so many replies, each of which is passed on or refused by itself."""
        self._sessions.check_body(body)
        if command.err or command.more:
            problem = "REPLY: n and err exclude each other, and n and more"
            raise RemoteProtocolError(400, "bad_request", problem)
        bodies = wire.split(body, command.n)
        if isinstance(first, Batch) and first.has(command.r, command.n):
            self._answer_together(session, first, command, body, now)
            return
        for handle, inner in enumerate(bodies, command.r):
            try:
                self.on_reply(session, wire.Reply(handle), inner, now)
            except RemoteProtocolError as error:
                self._sessions.error(session, error, None)

    def _answer_together(
        self, session: Session, batch: Batch, command: wire.Reply, body: bytes, now: float
    ) -> None:
        ref = self._errands.release_some(batch, command.r, command.n, now)
        reply = wire.ReplyDelivery(ref, session.key, n=command.n)
        self._sessions.send(batch.caller.session, wire.encode(reply), body)
        if batch.offer is not None and batch.offer.limit:  # it has one since
            self._errands.refill(batch.offer, now)

    def _answer_owner(
        self, errand: Errand, owner: Round | Promise, reply: Kept, now: float
    ) -> None:
        if isinstance(owner, Round):
            head = _encode(owner.ref, reply, more=True)
            self._sessions.send(owner.caller.session, head, reply.body)
            self._errands.answered(owner, errand)
            return
        self._replies.keep(owner.identity, reply, now)
        for repeat in self._errands.keep_promise(owner):
            self._sessions.send(repeat.caller.session, _encode(repeat.ref, reply), reply.body)

    def _on_chunk(self, session: Session, errand: Errand, body: bytes, now: float) -> None:
        """A part of a streamed reply; what breaks the rules ends it for both sides."""
        problem = None
        if errand.window == ONE_REPLY:
            problem = RemoteProtocolError(400, "not_streamed", "one reply was asked for, no stream")
        elif errand.window == 0:
            problem = RemoteProtocolError(429, "credit", "more chunks than were granted")
        elif len(body) > self._sessions.limits.payload:
            problem = RemoteProtocolError(413, "too_large", "a chunk of the reply was too large")
        if problem is not None:
            self._errands.spoil(errand, problem, now)
            self._errands.settle(now)
            raise problem
        errand.window -= 1
        chunk = wire.ReplyDelivery(errand.ref, session.key, more=True)
        self._sessions.send(errand.caller.session, wire.encode(chunk), body)

    def on_credit(self, session: Session, command: wire.Credit, _body: bytes, now: float) -> None:
        """Leave for more chunks of the reply to `command.ref`; at most `MAX_WINDOW` are under way."""
        desk = self._errands.desks.get(session)
        errand = desk.calls.get(command.ref or 0) if desk is not None else None
        if not isinstance(errand, Errand) or errand.window == ONE_REPLY:
            return  # over, most probably
        more = min(command.m, wire.MAX_WINDOW - errand.window)
        errand.window += more
        worker = errand.worker
        if worker is None or not more or wire.STREAMS not in worker.session.caps:
            return
        if self._errands.keeps_up(worker.session):
            grant = wire.CreditDelivery(errand.handle, more)
            self._sessions.send(worker.session, wire.encode(grant))
        else:
            slow = RemoteProtocolError(429, "limit", "who answers does not keep up")
            self._errands.spoil(errand, slow, now)
            self._errands.settle(now)

    def _leave(self, session: Session, num: int, _reason: str) -> None:
        self._now = now = max(self._now, session.heard)
        revoked = num == 401
        if revoked:
            self._replies.forget(session.key)
        self._errands.leave(session, now, returns=not revoked)


def _take_apart(command: wire.Request, body: bytes) -> list[bytes]:
    """The bodies of a batch; `RemoteProtocolError` for what cannot be one."""
    if command.to is not None or command.idem or command.stream or command.all:
        problem = "REQUEST: n excludes to, idem, stream and all"
        raise RemoteProtocolError(400, "bad_request", problem)
    if command.s.startswith("$SYS.") or command.id + command.n - 1 > wire.MAX_ID:
        raise RemoteProtocolError(400, "bad_request", f"REQUEST {command.s}: not as a batch")
    return wire.split(body, command.n)


def _check_exclusions(command: wire.Request) -> None:
    for one, other, both in (
        ("to", "all", command.to is not None and command.all),
        ("stream", "all", command.stream and command.all),
        ("idem", "all", command.idem and command.all),
        ("idem", "stream", command.idem and command.stream),
    ):
        if both:
            raise RemoteProtocolError(400, "bad_request", f"{one} and {other} exclude each other")


def _encode(ref: int, reply: Kept, *, more: bool = False) -> bytes:
    return wire.encode(wire.ReplyDelivery(ref, reply.sender, reply.err, reply.msg, reply.num, more))
