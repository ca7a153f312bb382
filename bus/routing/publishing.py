"""PUBLISH, SUBSCRIBE, UNSUBSCRIBE, SIGNAL: what goes to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bus import subjects, wire
from bus.errors import RemoteProtocolError
from bus.routing.groups import Groups
from bus.routing.outbox import DROP_NEW, POLICIES, Drops, Outgoing
from bus.routing.parts import Handler, Part
from bus.routing.peers import Session, Subscription
from bus.routing.sessions import Sessions

# Keeps what is published for those who come later: the session that published it (None: the broker, for
# it or another), the publisher's key, the command, the body. True when it will answer the command's `id`
# itself; what it raises as `RemoteProtocolError` is refused, and nobody gets it.
Capture = Callable[[Session | None, str, wire.Publish, bytes], bool]


class Publishing(Part):
    """The subscriptions of one broker."""

    def __init__(self, sessions: Sessions) -> None:
        self.capture: Capture | None = None
        self._sessions = sessions
        self._subscriptions: subjects.SubjectTree[Subscription] = subjects.SubjectTree(_may_get)
        self._groups = Groups(sessions)
        sessions.leaving.append(self._leave)
        sessions.changed.append(self._recheck)

    @property
    def handlers(self) -> Mapping[type[wire.Command], Handler]:
        return {
            wire.Publish: self.on_publish,
            wire.Signal: self.on_signal,
            wire.Subscribe: self.on_subscribe,
            wire.Unsubscribe: self.on_unsubscribe,
        }

    @property
    def next_deadline(self) -> float | None:
        return self._groups.next_deadline

    def handle_timer(self, now: float) -> None:
        """Try again what waits for a queue group."""
        self._groups.handle_timer(now)

    def announce(self, sender: str, subject: str, body: bytes) -> None:
        """Publish what no session says: the broker itself, or it for a participant (`sender`) that is gone.

        `RemoteProtocolError` when a durable topic does not take it; nobody has got it then.
        """
        if self.capture is not None:
            self.capture(None, sender, wire.Publish(subject), body)
        self.publish(sender, subject, 1, body)

    def publish(self, sender: str, subject: str, n: int, body: bytes) -> None:
        """Queue `n` messages for every subscriber; who may publish was looked at before.

        `RemoteProtocolError` 400, and nobody gets it, when a queue group listens and the batch is none.
        """
        if self._groups.any and self._groups.listens(subject):
            bodies = [body] if n == 1 else wire.split(body, n)
            self._groups.publish(sender, subject, bodies)
        for subscription in self._subscriptions.match(subject):
            head = wire.encode(wire.Delivery(subscription.drops.sid, subject, sender, n))
            outgoing = Outgoing(head, body, subscription.drops, n)
            self._sessions.queue(subscription.session, outgoing)

    def on_publish(self, session: Session, command: wire.Publish, body: bytes, _now: float) -> None:
        sessions = self._sessions
        sessions.permit(session, "publish", command.s)
        sessions.check_body(body)
        answered = self.capture is not None and self.capture(session, session.key, command, body)
        self.publish(session.key, command.s, command.n, body)
        if command.id is not None and not answered:
            sessions.ok(session, command.id)

    def on_signal(self, session: Session, command: wire.Signal, body: bytes, _now: float) -> None:
        sessions = self._sessions
        sessions.permit(session, "signal", command.s)
        sessions.check_body(body)
        recipient = sessions.present(command.to)
        sessions.send(recipient, wire.encode(wire.SignalDelivery(command.s, session.key)), body)
        if command.id is not None:
            sessions.ok(session, command.id)

    def on_subscribe(
        self, session: Session, command: wire.Subscribe, _body: bytes, _now: float
    ) -> None:
        check_pattern(command.s)
        if command.policy not in POLICIES:
            policies = ", ".join(POLICIES)
            raise RemoteProtocolError(400, "bad_policy", f"policy is one of {policies}")
        if command.sid in session.subscriptions:
            raise RemoteProtocolError(409, "conflict", f"sid {command.sid} is in use")
        self._sessions.check_room(len(session.subscriptions), "subscriptions")
        self._sessions.permit(session, "subscribe", command.s)
        # A group gives to whom has room, so what a member has got must not be dropped again.
        policy = DROP_NEW if command.q else command.policy
        subscription = Subscription(
            session, command.s, Drops(command.sid, policy), command.q, command.window
        )
        session.subscriptions[command.sid] = subscription
        self._sessions.ok(session, command.id)
        if command.q:
            self._groups.join(subscription)
        else:
            self._subscriptions.add(command.s, subscription)

    def on_unsubscribe(
        self, session: Session, command: wire.Unsubscribe, _body: bytes, _now: float
    ) -> None:
        subscription = session.subscriptions.pop(command.sid, None)
        if subscription is None:
            raise RemoteProtocolError(404, "no_subscription", f"no sid {command.sid}")
        self._forget(subscription)
        self._sessions.ok(session, command.id)

    def on_credit(self, session: Session, sid: int, messages: int) -> None:
        """A member of a queue group has done with some messages. What it left meanwhile asks for nothing."""
        subscription = session.subscriptions.get(sid)
        if subscription is None:
            return
        if not subscription.group:
            problem = f"CREDIT: subscription {sid} is in no queue group"
            raise RemoteProtocolError(400, "bad_request", problem)
        self._groups.give_back(subscription, messages)

    def _forget(self, subscription: Subscription) -> None:
        subscription.drops.over = True
        if subscription.group:
            self._groups.leave(subscription)
        else:
            self._subscriptions.remove(subscription.pattern, subscription)

    def _leave(self, session: Session, _num: int, _reason: str) -> None:
        for subscription in session.subscriptions.values():
            self._forget(subscription)

    def _recheck(self, session: Session) -> None:
        """Its rights have changed: take away what it may no longer hear."""
        self._subscriptions.forget()
        ended = [
            subscription
            for subscription in session.subscriptions.values()
            if not self._sessions.still_may(session, "subscribe", subscription.pattern)
        ]
        for subscription in ended:
            del session.subscriptions[subscription.drops.sid]
            self._forget(subscription)
        if ended:
            session.outbox.purge()
        for subscription in ended:
            self._sessions.end(session, subscription.pattern, subscription.drops.sid)


def check_pattern(pattern: str) -> None:
    """`RemoteProtocolError` 400 unless this may be subscribed to or served."""
    if not subjects.is_pattern(pattern):
        raise RemoteProtocolError(400, "bad_subject", f"not a pattern: {pattern!r}")


def _may_get(subscription: Subscription, subject: str) -> bool:
    """Whether no deny of its key withholds the subject from a subscription that matches it."""
    return subscription.session.rights.delivers(subject)
