"""What the broker asks workers on behalf of those who asked it, and every way in which that ends.

An errand waits in a line or is with a worker; the worker replies, breaks the rules or leaves, or the
errand is taken back (cancelled, overdue, its caller gone). Each of these ends it, except that what may be
repeated is asked of another worker when its worker leaves.

Whatever is said to a session may end it, and that may end other calls and errands while one is worked
on: so nothing here relies on what it has looked at before it said something. And what a session leaves
behind, by its end or because it may not ask any more, is given to others only in `settle`, when all that
ends together has ended.
"""

from __future__ import annotations

from bus import wire
from bus.errors import RemoteProtocolError
from bus.routing.handles import (
    Batch,
    Call,
    Desk,
    Errand,
    Handles,
    Holdings,
    Identity,
    Offer,
    Promise,
    Repeat,
    Round,
)
from bus.routing.offers import Offers
from bus.routing.peers import Session
from bus.routing.sessions import Sessions

COST = 2048  # bytes that an errand counts for, beside its body, where more than its handle is kept


class Errands:
    """The calls and errands of one broker."""

    def __init__(self, sessions: Sessions) -> None:
        limits = sessions.limits
        self._sessions = sessions
        self._half_bytes = limits.queue_bytes // 2
        self._half_messages = limits.queue_messages // 2
        self.desks: dict[Session, Desk] = {}
        self.handles = Handles(sessions.info.epoch)
        self.offers = Offers(self.keeps_up)
        self.promised: dict[Identity, Promise] = {}
        self.holdings = Holdings(limits.queue_bytes)
        self.freed: dict[Offer, None] = {}  # may have room for what waits
        self.orphans: dict[
            Errand, RemoteProtocolError
        ] = {}  # and how they fail if nobody takes them

    def settle(self, now: float) -> None:
        """Give others what was left behind: what is in `freed` and `orphans`."""
        while self.orphans:
            errand, error = self.orphans.popitem()
            if not self._ask_another(errand, now):
                self.fail(errand, error, now)
        while self.freed:
            self.refill(self.freed.popitem()[0], now)

    def desk(self, session: Session) -> Desk:
        desk = self.desks.get(session)
        if desk is None:
            desk = self.desks[session] = Desk(session)
        return desk

    def keeps_up(self, session: Session) -> bool:
        """Whether half its queue is free: others must not be able to end it by what they ask of it.

        Deliveries that wait for credit do not count; all else passes them.
        """
        outbox, size, messages = session.outbox, self._half_bytes, self._half_messages
        return outbox.has_room(size, messages) or (
            not outbox.has_credit and outbox.has_room_beside(size // 4, messages // 4)
        )

    # On the way to a worker.

    def choose(self, errand: Errand) -> tuple[Desk | None, Offer | None]:
        """Who is to answer; nobody when all who could have no room, and one more may wait for it.

        `RemoteProtocolError` 404 or 429 when it can be neither.
        """
        if errand.to is None:
            offer = self.offers.choose(errand.subject)
            if offer is not None:
                return offer.desk, offer
            self.offers.check_line(errand.subject)
            return None, None
        session = self._sessions.present(errand.to)
        if not self.keeps_up(session):
            raise RemoteProtocolError(429, "limit", f"{errand.to} does not keep up")
        return self.desk(session), None

    def place(
        self, errand: Errand, worker: Desk | None, offer: Offer | None, body: bytes, now: float
    ) -> None:
        """Do what was chosen."""
        if worker is None:
            self.offers.wait(errand)
            return
        self.deliver(errand, worker, offer, body, now)
        if offer is not None and offer.limit:
            self.refill(offer, now)  # with those who waited because it did not keep up

    def deliver(
        self, errand: Errand, worker: Desk, offer: Offer | None, body: bytes, now: float
    ) -> None:
        handle = self.handles.take()
        errand.worker, errand.offer, errand.handle, errand.began = worker, offer, handle, now
        worker.errands[handle] = errand
        if offer is not None:
            offer.inflight += 1
            offer.requests += 1
        left = int((errand.deadline - now) * 1000 + 0.5)
        # Who does not know streams is not told of one, and answers with one reply.
        chunks = errand.window if errand.window > 0 and wire.STREAMS in worker.session.caps else 0
        delivery = wire.RequestDelivery(
            handle, errand.subject, errand.caller.session.key, left, errand.to is not None, chunks,
        )  # fmt: skip
        self._sessions.send(worker.session, wire.encode(delivery), body)

    def deliver_batch(self, batch: Batch, offer: Offer, body: bytes, now: float) -> None:
        """As `deliver`, all of it at once."""
        worker, n = offer.desk, batch.n
        handle = self.handles.take(n)
        batch.worker, batch.offer, batch.handle, batch.began = worker, offer, handle, now
        worker.errands.update(dict.fromkeys(range(handle, handle + n), batch))
        offer.inflight += n
        offer.requests += n
        left = int((batch.deadline - now) * 1000 + 0.5)
        delivery = wire.RequestDelivery(handle, batch.subject, batch.caller.session.key, left, n=n)
        self._sessions.send(worker.session, wire.encode(delivery), body)

    def refill(self, offer: Offer, now: float) -> None:
        """Give the offer what waits for it, as far as it has room."""
        while (errand := self.offers.next_for(offer)) is not None:
            body = errand.body or b""
            if not isinstance(errand.owner, Promise):
                self.unhold(errand)
            if errand.deadline > now:  # else the timer is about to end it
                self.deliver(errand, offer.desk, offer, body, now)

    def hold(self, errand: Errand, body: bytes) -> None:
        """Keep the body to send it later; 429 when the key has too much of that."""
        size = len(body) + COST
        self.holdings.hold(errand.caller.session.key, size)
        errand.body, errand.held = body, size

    def unhold(self, errand: Errand) -> None:
        if errand.held:
            self.holdings.free(errand.caller.session.key, errand.held)
        errand.body, errand.held = None, 0

    # Back from a worker.

    def release_some(self, batch: Batch, handle: int, n: int, now: float) -> int:
        """So many of a batch are answered; gives the id of the first."""
        offer = batch.offer
        if offer is not None:
            offer.inflight -= n
            offer.seconds += n * (now - batch.began)
        return self.handles.close_some(batch, handle, n)

    def release(self, errand: Errand, now: float, *, failed: bool) -> None:
        """The worker is done with it; the handle is void."""
        worker, offer = errand.worker, errand.offer
        if worker is not None:
            del worker.errands[errand.handle]
        errand.worker = errand.offer = None
        if offer is not None:
            offer.inflight -= 1
            offer.errors += failed
            offer.seconds += now - errand.began

    def take_back(self, errand: Errand, now: float, *, failed: bool = False) -> None:
        """Nobody wants an answer to it any more."""
        self.unhold(errand)
        worker, offer = errand.worker, errand.offer
        if worker is None:
            self.offers.leave_lines(errand)
            return
        self.release(errand, now, failed=failed)
        if wire.STREAMS in worker.session.caps and self.keeps_up(worker.session):
            head = wire.encode(wire.CancelDelivery(errand.handle))
            self._sessions.send(worker.session, head)
        self._free(offer)

    def _free(self, offer: Offer | None) -> None:
        if offer is not None and offer.limit:
            self.freed[offer] = None

    def spoil(self, errand: Errand, error: RemoteProtocolError, now: float) -> None:
        """The worker broke the rules: the errand ends with an error for who asked."""
        offer = errand.offer
        self.release(errand, now, failed=True)
        self.fail(errand, error, now)
        self._free(offer)

    def fail(self, errand: Errand, error: RemoteProtocolError, now: float) -> None:
        """What is with no worker and will be with none ends with an error for who asked."""
        owner = errand.owner
        if owner is None:
            if not errand.over:
                self.unhold(errand)
                self.handles.close(errand)
                self.tell(errand, error)
        elif isinstance(owner, Round):
            self.answered(owner, errand)
        elif not owner.over:
            self.drop(owner, now)
            for repeat in list(owner.repeats):
                if not repeat.over:
                    self.handles.close(repeat)
                    self.tell(repeat, error)

    def withdraw(self, offer: Offer, now: float) -> None:
        """It is offered no more; what the worker was asked already it may still answer."""
        for errand in self.offers.remove(offer):
            problem = f"nobody serves {errand.subject} any more"
            self.fail(errand, RemoteProtocolError(404, "no_responders", problem), now)

    def leave(self, session: Session, now: float, *, returns: bool) -> None:
        """The session has ended, as a caller, who may come back, and as a worker."""
        desk = self.desks.pop(session, None)
        if desk is None:
            return
        desk.open = False
        self.handles.take_all_apart(desk)
        for offer in list(desk.offers.values()):
            self.withdraw(offer, now)
        for call in list(desk.calls.values()):
            if not call.over:
                self.end(call, now, returns=returns)
        gone = f"{session.name or session.key} left before it replied"
        left = RemoteProtocolError(404, "not_present", gone)
        for errand in list(desk.errands.values()):
            if errand.worker is desk:
                self.release(errand, now, failed=True)
                if isinstance(errand.owner, Promise):
                    self.orphans[errand] = left
                else:
                    self.fail(errand, left, now)

    def _ask_another(self, errand: Errand, now: float) -> bool:
        """Its worker is gone: whether somebody else does what may be repeated."""
        wanted = isinstance(errand.owner, Promise) and errand.owner.repeats
        if not wanted or errand.deadline <= now:
            return False
        try:
            worker, offer = self.choose(errand)
        except RemoteProtocolError:
            return False
        self.place(errand, worker, offer, errand.body or b"", now)
        return True

    # Back to the caller.

    def end(self, call: Call, now: float, *, failed: bool = False, returns: bool = False) -> None:
        """The caller waits no more, and is not told so here. What is overdue has `failed`.

        A caller whose session has ended may come back and ask again (`returns`): what it asked that may
        be repeated goes on.
        """
        if isinstance(call, Errand):
            self.handles.close(call)
            self.take_back(call, now, failed=failed)
        elif isinstance(call, Round):
            self._close_round(call)
            errands, call.errands = call.errands, {}
            for errand in errands:
                self.take_back(errand, now, failed=failed)
        elif isinstance(call, Repeat):
            self.handles.close(call)
            promise = call.promise
            del promise.repeats[call]
            goes_on = promise.errand.worker is not None and (failed or returns)
            if not promise.repeats and not goes_on:
                self.drop(promise, now)

    def answered(self, call: Round, errand: Errand) -> None:
        """One of all has answered or never will; the last ends the call."""
        call.errands.pop(errand, None)
        if not call.errands and not call.over:
            self._close_round(call)
            self.send_last(call)

    def send_last(self, call: Round) -> None:
        """All that will answer have."""
        head = wire.encode(wire.ReplyDelivery(call.ref, self._sessions.info.key))
        self._sessions.send(call.caller.session, head, b"")

    def join(self, promise: Promise, repeat: Repeat) -> None:
        """One more waits for it."""
        promise.repeats[repeat] = None
        self.handles.open(repeat)
        if repeat.deadline > promise.deadline:
            promise.deadline = promise.errand.deadline = repeat.deadline
            self.handles.remind(promise)

    def keep_promise(self, promise: Promise) -> list[Repeat]:
        """The reply is there: those who waited for it."""
        self._close_promise(promise)
        waited = [repeat for repeat in promise.repeats if not repeat.over]
        for repeat in waited:
            self.handles.close(repeat)
        return waited

    def drop(self, promise: Promise, now: float, *, failed: bool = False) -> None:
        """There will be no such reply."""
        if not promise.over:
            self._close_promise(promise)
            self.take_back(promise.errand, now, failed=failed)

    def tell(self, call: Call, error: RemoteProtocolError) -> None:
        self._sessions.error(call.caller.session, error, call.ref)

    def _close_promise(self, promise: Promise) -> None:
        promise.over = True
        del self.promised[promise.identity]
        self.unhold(promise.errand)

    def _close_round(self, call: Round) -> None:
        self.handles.close(call)
        self.holdings.free(call.caller.session.key, call.held)
