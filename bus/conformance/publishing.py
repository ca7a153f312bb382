"""Subjects, subscriptions, deliveries, signals (sections 6 to 8)."""

from __future__ import annotations

import msgspec

from bus.conformance.checks import Checks
from bus.conformance.results import Unexpected
from bus.conformance.table import Peer, Table

PUBLISHING = Checks()


def subscribed(peer: Peer, sid: int, pattern: str, **fields: object) -> Peer:
    """Subscribe and hear the OK."""
    peer.says("SUBSCRIBE", id=sid, sid=sid, s=pattern, **fields)
    peer.hears("OK", ref=sid)
    return peer


@PUBLISHING.check(
    "a subscriber hears subject, proved sender and body; also its own; OK comes if asked for"
)
def _(table: Table) -> None:
    alice, bob = table.joins(), table.other_joins()
    subscribed(alice, 1, f"{table.place}.*")
    subscribed(bob, 2, f"{table.place}.*")
    alice.says("PUBLISH", b"-4.5", id=3, s=f"{table.place}.oslo")
    heard = sorted([alice.hears().name, alice.hears().name])
    if heard != ["DELIVERY", "OK"]:
        raise Unexpected("DELIVERY and OK", " and ".join(heard))
    bob.hears("DELIVERY", b"-4.5", sid=2, s=f"{table.place}.oslo", from_=alice.key)
    alice.says("PUBLISH", b"", s=f"{table.place}.oslo")
    bob.hears("DELIVERY", b"", sid=2)


@PUBLISHING.check("* matches one token and > one or more, by whole tokens")
def _(table: Table) -> None:
    alice, bob, base = table.joins(), table.other_joins(), table.place
    for sid, pattern in enumerate([f"{base}.a.*", f"{base}.a.>", f"{base}.a", f"{base}.*.b"], 1):
        subscribed(bob, sid, pattern)
    for subject, sids in [
        ("a", {3}), ("a.b", {1, 2, 4}), ("a.c", {1, 2}), ("a.b.c", {2}), ("ab", set()), ("x.b", {4}),
        ("ab.c", set()),
    ]:  # fmt: skip
        alice.says("PUBLISH", subject.encode(), id=9, s=f"{base}.{subject}")
        alice.hears("OK", ref=9)
        heard = {bob.hears("DELIVERY", subject.encode()).fields["sid"] for _ in sids}
        if heard != sids:
            raise Unexpected(f"{subject} for the subscriptions {sids}", f"for {heard}")
        bob.hears_no_more()


@PUBLISHING.check("after UNSUBSCRIBE nothing more comes")
def _(table: Table) -> None:
    peer = subscribed(table.joins(), 1, table.place)
    peer.says("UNSUBSCRIBE", id=2, sid=1)
    peer.hears("OK", ref=2)
    peer.says("PUBLISH", b"late", id=3, s=table.place)
    peer.hears("OK", ref=3)
    peer.hears_no_more()


@PUBLISHING.check("a batch is delivered as it was sent")
def _(table: Table) -> None:
    alice, bob = table.joins(), subscribed(table.other_joins(), 1, table.place)
    body = msgspec.msgpack.encode([b"-4.5", b"-4.4", b""])
    alice.says("PUBLISH", body, s=table.place, n=3)
    bob.hears("DELIVERY", body, sid=1, n=3)


@PUBLISHING.check("messages of one publisher come in the order of their sending")
def _(table: Table) -> None:
    alice, bob = table.joins(), subscribed(table.other_joins(), 1, f"{table.place}.>")
    for number in range(200):
        alice.says("PUBLISH", b"%d" % number, s=f"{table.place}.{number % 7}")
    for number in range(200):
        bob.hears("DELIVERY", b"%d" % number)


@PUBLISHING.check("what cannot be subscribed to is refused by name")
def _(table: Table) -> None:
    peer = subscribed(table.joins(), 1, table.place)
    for pattern in ("a..b", "a.>.b", "a b", ".a", "a*", "ü", ".".join("a" * 17)):
        peer.says("SUBSCRIBE", id=2, sid=2, s=pattern)
        peer.hears("ERROR", num=400, err="bad_subject", ref=2)
    peer.says("SUBSCRIBE", id=3, sid=3, s=table.place, policy="hope")
    peer.hears("ERROR", num=400, err="bad_policy", ref=3)
    peer.says("SUBSCRIBE", id=4, sid=1, s=table.place)
    peer.hears("ERROR", num=409, err="conflict", ref=4)
    peer.says("UNSUBSCRIBE", id=5, sid=77)
    peer.hears("ERROR", num=404, err="no_subscription", ref=5)


@PUBLISHING.check(
    "a subject with a wildcard cannot be published to; nor can what is the broker's own"
)
def _(table: Table) -> None:
    peer = table.joins()
    peer.says("PUBLISH", b"", id=1, s=f"{table.place}.*")
    peer.hears("ERROR", num=400, err="bad_subject", ref=1)
    peer.says("PUBLISH", b"", s="$SYS.presence.forged")
    peer.hears("ERROR", num=403, err="denied")
    peer.says("SERVE", id=3, s="$SYS.info")
    peer.hears("ERROR", num=403, err="denied", ref=3)


@PUBLISHING.check("a signal reaches the key's session, and nobody that is not there")
def _(table: Table) -> None:
    alice, bob = table.joins(), table.other_joins()
    alice.says("SIGNAL", b"red", id=1, to=bob.key, s=table.place)
    answer = alice.hears(ref=1)
    if answer.name == "ERROR" and answer.fields["err"] == "denied":
        return  # by the role: refusing is right as well
    bob.hears("SIGNAL-DELIVERY", b"red", s=table.place, from_=alice.key)
    alice.says("SIGNAL", b"red", id=2, to="0" * 40, s=table.place)
    alice.hears("ERROR", num=404, err="not_present", ref=2)
