"""Dialogues: publishing, subscribing, signals, permissions, limits, and slow readers."""

import msgspec
import pytest

from bus import wire
from bus.routing.sessions import LIMITS
from tests.support.dialogue import Peer, Table, key_of, only, refused

SMALL = msgspec.structs.replace(
    LIMITS, payload=100, subscriptions=2, inflight=2, queue_messages=10, queue_bytes=10_000
)


def subscribed(peer: Peer, pattern: str = "app.>", sid: int = 1, policy: str = "drop_old") -> Peer:
    assert peer.say(wire.Subscribe(50 + sid, sid, pattern, policy)) == [wire.Ok(50 + sid)]
    return peer


def test_a_message_reaches_every_matching_subscription_of_every_session() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), subscribed(table.join("bob"))
    subscribed(bob, "app.*.x", sid=2)
    subscribed(bob, "app.other", sid=3)
    assert alice.say(wire.Publish("app.a.x"), b"hello") == []
    heard = sorted(bob.hears_bodies(), key=lambda pair: pair[0].sid)  # type: ignore[attr-defined]
    assert heard == [
        (wire.Delivery(1, "app.a.x", alice.key), b"hello"),
        (wire.Delivery(2, "app.a.x", alice.key), b"hello"),
    ]


def test_an_id_asks_for_an_ok_and_a_publisher_hears_itself() -> None:
    table = Table(alice="app")
    alice = subscribed(table.join("alice"))
    assert alice.say(wire.Publish("app.a", id=9), b"x") == [
        wire.Delivery(1, "app.a", alice.key),
        wire.Ok(9),
    ]


def test_a_batch_is_delivered_as_it_was_sent() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), subscribed(table.join("bob"))
    alice.say(wire.Publish("app.a", 3), b"not looked into")
    assert bob.hears_bodies() == [(wire.Delivery(1, "app.a", alice.key, 3), b"not looked into")]


def test_a_message_without_a_body_frame_has_an_empty_body() -> None:
    table = Table(alice="app")
    alice = subscribed(table.join("alice"))
    alice.say_later(wire.Publish("app.a"))
    assert alice.hears_bodies() == [(wire.Delivery(1, "app.a", alice.key), b"")]


def test_nothing_is_delivered_before_subscribe_and_after_unsubscribe() -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    assert alice.say(wire.Publish("app.a")) == []
    subscribed(alice)
    assert alice.say(wire.Unsubscribe(2, 1)) == [wire.Ok(2)]
    assert alice.say(wire.Publish("app.a")) == []
    assert refused(alice.say(wire.Unsubscribe(3, 1))) == (404, "no_subscription", 3)


def test_a_sid_is_free_again_after_unsubscribe() -> None:
    alice = subscribed(Table(alice="app").join("alice"))
    assert refused(alice.say(wire.Subscribe(2, 1, "app.b"))) == (409, "conflict", 2)
    alice.say(wire.Unsubscribe(3, 1))
    subscribed(alice, "app.b")


@pytest.mark.parametrize(
    "command",
    [wire.Subscribe(7, 1, "app..x"), wire.Subscribe(7, 1, "app.>.x"), wire.Serve(7, "a b"),
     wire.Publish("app.*", id=7), wire.Publish("app.>", id=7),
     wire.Publish(".", id=7), wire.Request(7, "app.*", 99), wire.Signal("k" * 40, "a.>", 7)],
)  # fmt: skip
def test_what_is_no_subject_or_pattern_is_refused(command: wire.Command) -> None:
    alice = Table(alice="admin").join("alice")
    assert refused(alice.say(command)) == (400, "bad_subject", 7)
    assert alice.in_session


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    alice = Table(alice="app").join("alice")
    error = only(alice.say(wire.Subscribe(7, 1, "app.x", "drop_all")), wire.Error)
    assert (error.err, error.msg) == (
        "bad_policy",
        "policy is one of drop_old, drop_new, disconnect",
    )


@pytest.mark.parametrize(
    "command",
    [wire.Publish("mesh.x", id=7), wire.Subscribe(7, 1, ">"), wire.Subscribe(7, 1, "$SYS.>"),
     wire.Serve(7, "mesh.x"), wire.Serve(7, ">"), wire.Request(7, "mesh.x", 99),
     wire.Request(7, "$SYS.info", 99), wire.Request(7, "signal.ping", 99, "k" * 40),
     wire.Signal("k" * 40, "app.x", 7)],
    ids=lambda c: f"{type(c).__name__} {c.s}",
)  # fmt: skip
def test_what_the_role_does_not_allow_is_denied_and_says_so(command: wire.Command) -> None:
    alice = Table(alice="app").join("alice")
    error = only(alice.say(command), wire.Error)
    assert (error.num, error.err, error.ref) == (403, "denied", 7)
    assert "not allowed to role app" in error.msg
    assert command.s in error.msg  # type: ignore[attr-defined]
    assert only(alice.say(command), wire.Error) == error  # remembered, and the same


@pytest.mark.parametrize("command", [wire.Publish("$SYS.x", id=7), wire.Serve(7, "$SYS.x")])
def test_not_even_an_admin_speaks_for_the_broker(command: wire.Command) -> None:
    alice = Table(alice="admin").join("alice")
    assert refused(alice.say(command)) == (403, "denied", 7)


def test_a_refused_publish_without_an_id_is_told_without_a_ref() -> None:
    alice = Table(alice="app").join("alice")
    assert refused(alice.say(wire.Publish("mesh.x"))) == (403, "denied", None)


def test_a_signal_reaches_the_newest_session_of_the_key() -> None:
    table = Table(alice="operator", bob="app")
    alice, old, new = table.join("alice"), table.join("bob"), table.join("bob")
    assert alice.say(wire.Signal(key_of("bob"), "app.wake", 5), b"now") == [wire.Ok(5)]
    assert old.hears() == []
    assert new.hears_bodies() == [(wire.SignalDelivery("app.wake", alice.key), b"now")]
    assert alice.say(wire.Signal(key_of("bob"), "app.wake")) == []


def test_a_signal_to_who_is_not_there_is_not_present() -> None:
    alice = Table(alice="operator", bob="app").join("alice")
    assert refused(alice.say(wire.Signal(key_of("bob"), "app.x", 5))) == (404, "not_present", 5)


@pytest.mark.parametrize(
    "command",
    [wire.Publish("app.x", id=7), wire.Signal(key_of("alice"), "app.x", 7),
     wire.Request(7, "app.x", 99)],
)  # fmt: skip
def test_a_body_over_the_limit_is_too_large_but_ends_nothing(command: wire.Command) -> None:
    alice = Table(SMALL, alice="operator").join("alice")
    assert refused(alice.say(command, bytes(101))) == (413, "too_large", 7)
    alice.say(command, bytes(100))
    assert alice.in_session


def test_subscriptions_and_services_are_limited() -> None:
    alice = Table(SMALL, alice="app").join("alice")
    subscribed(alice, sid=1)
    subscribed(alice, sid=2)
    assert refused(alice.say(wire.Subscribe(7, 3, "app.x"))) == (429, "limit", 7)
    alice.say(wire.Unsubscribe(8, 2))
    subscribed(alice, sid=3)
    alice.say(wire.Serve(1, "app.a"))
    alice.say(wire.Serve(2, "app.b"))
    assert refused(alice.say(wire.Serve(9, "app.c"))) == (429, "limit", 9)


@pytest.mark.parametrize("policy", ["drop_old", "drop_new"])
def test_a_slow_reader_is_told_exactly_what_it_missed(policy: str) -> None:
    table = Table(SMALL, alice="app", bob="app")
    alice, bob = table.join("alice"), subscribed(table.join("bob"), policy=policy)
    bob.reading = False
    for number in range(25):
        alice.say(wire.Publish("app.x"), b"%d" % number)
    kept = table.resumes(bob)
    alice.say(wire.Publish("app.x"), b"25")
    kept += bob.hears_bodies()
    missed = sum(c.lost for c, _ in kept if isinstance(c, wire.Gap))
    bodies = [body for c, body in kept if isinstance(c, wire.Delivery)]
    assert missed + len(bodies) == 26
    assert bodies == sorted(bodies, key=lambda body: int(body or b""))
    assert bodies[0] == (b"0" if policy == "drop_new" else bodies[0])
    assert bodies[-1] == b"25"


def test_a_reader_that_wants_all_or_nothing_is_disconnected_when_slow() -> None:
    table = Table(SMALL, alice="app", bob="app")
    alice, bob = table.join("alice"), subscribed(table.join("bob"), policy="disconnect")
    bob.reading = False
    for _ in range(11):
        alice.say(wire.Publish("app.x"))
    assert only(bob.hears(), wire.Goodbye).num == 429
    assert bob.cut
    assert alice.in_session


def test_answers_that_nobody_reads_end_the_session() -> None:
    table = Table(SMALL, alice="app")
    alice = table.join("alice")
    alice.reading = False
    for _ in range(13):  # a quarter more than its queue of deliveries
        assert alice.in_session
        alice.say(wire.Ping())
    assert not alice.in_session
    assert alice.cut


def test_a_slow_reader_does_not_hold_up_others() -> None:
    table = Table(SMALL, alice="app", bob="app", carol="app")
    alice, bob, carol = table.join("alice"), table.join("bob"), subscribed(table.join("carol"))
    subscribed(bob)
    bob.reading = False
    for number in range(100):
        alice.say(wire.Publish("app.x"), b"%d" % number)
        assert carol.hears_bodies() == [(wire.Delivery(1, "app.x", alice.key), b"%d" % number)]
    assert bob.in_session


def test_the_memory_of_permissions_is_bounded() -> None:
    alice = Table(alice="operator").join("alice")
    for number in range(3000):
        alice.say(wire.Publish(f"app.{number}"))
    assert len(alice.session.allowed) <= 1024
