"""PUBLISH, SUBSCRIBE, UNSUBSCRIBE, SIGNAL: what goes to whom."""

from __future__ import annotations

from bus import subjects, wire
from bus.errors import RemoteProtocolError
from bus.routing.outbox import POLICIES, Drops, Outgoing
from bus.routing.peers import Session, Subscription
from bus.routing.sessions import Sessions


class Publishing:
    """The subscriptions of one broker."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._subscriptions: subjects.SubjectTree[Subscription] = subjects.SubjectTree(_may_get)
        sessions.leaving.append(self._leave)

    def rights_changed(self) -> None:
        """The rights of a session whose subscriptions stay are others now."""
        self._subscriptions.forget()

    def publish(self, sender: str, subject: str, n: int, body: bytes) -> None:
        """Queue `n` messages for every subscriber; who may publish was looked at before."""
        for subscription in self._subscriptions.match(subject):
            head = wire.encode(wire.Delivery(subscription.drops.sid, subject, sender, n))
            outgoing = Outgoing(head, body, subscription.drops, n)
            self._sessions.queue(subscription.session, outgoing)

    def on_publish(self, session: Session, command: wire.Publish, body: bytes, _now: float) -> None:
        sessions = self._sessions
        sessions.permit(session, "publish", command.s)
        sessions.check_body(body)
        self.publish(session.key, command.s, command.n, body)
        if command.id is not None:
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
        subscription = Subscription(session, command.s, Drops(command.sid, command.policy))
        session.subscriptions[command.sid] = subscription
        self._subscriptions.add(command.s, subscription)
        self._sessions.ok(session, command.id)

    def on_unsubscribe(
        self, session: Session, command: wire.Unsubscribe, _body: bytes, _now: float
    ) -> None:
        subscription = session.subscriptions.pop(command.sid, None)
        if subscription is None:
            raise RemoteProtocolError(404, "no_subscription", f"no sid {command.sid}")
        self._subscriptions.remove(subscription.pattern, subscription)
        self._sessions.ok(session, command.id)

    def _leave(self, session: Session, _num: int, _reason: str) -> None:
        for subscription in session.subscriptions.values():
            self._subscriptions.remove(subscription.pattern, subscription)


def check_pattern(pattern: str) -> None:
    """`RemoteProtocolError` 400 unless this may be subscribed to or served."""
    if not subjects.is_pattern(pattern):
        raise RemoteProtocolError(400, "bad_subject", f"not a pattern: {pattern!r}")


def _may_get(subscription: Subscription, subject: str) -> bool:
    """Whether no deny of its key withholds the subject from a subscription that matches it."""
    return subscription.session.rights.delivers(subject)
