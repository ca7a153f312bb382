"""Dialogues: deliveries that are counted, and what passes those that wait for credit."""

import pytest

from bus import wire
from tests.support.dialogue import Peer, Table, refused

DELIVERED = wire.Delivery


def counting(table: Table, name: str, m: int, b: int = 1 << 20) -> Peer:
    peer = table.join(name, wire.Hello(credit=wire.Grant(m, b)))
    assert peer.say(wire.Subscribe(1, 7, "app.>")) == [wire.Ok(1)]
    return peer


def bodies(peer: Peer) -> list[bytes | None]:
    return [body for command, body in peer.hears_bodies() if isinstance(command, wire.Delivery)]


def publish(peer: Peer, *messages: bytes) -> None:
    for message in messages:
        peer.say_later(wire.Publish("app.x"), message)


def test_a_session_gets_as_many_deliveries_as_it_granted() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), counting(table, "bob", 2)
    publish(alice, b"1", b"2", b"3", b"4")
    assert bodies(bob) == [b"1", b"2"]
    bob.say_later(wire.Credit(m=1))
    assert bodies(bob) == [b"3"]
    bob.say_later(wire.Credit(m=9))
    assert bodies(bob) == [b"4"]


def test_a_hello_with_no_credit_in_it_gets_none_before_it_grants_some() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), counting(table, "bob", 0, 0)
    publish(alice, b"1")
    assert bodies(bob) == []
    bob.say_later(wire.Credit(m=1))
    assert bodies(bob) == []
    bob.say_later(wire.Credit(b=1))
    assert bodies(bob) == [b"1"]


def test_a_body_larger_than_all_byte_credit_arrives_and_overdraws_it() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), counting(table, "bob", 100, 10)
    publish(alice, bytes(1000), b"next")
    assert bodies(bob) == [bytes(1000)]
    bob.say_later(wire.Credit(b=990))
    assert bodies(bob) == []
    bob.say_later(wire.Credit(b=1))
    assert bodies(bob) == [b"next"]


def test_answers_requests_and_signals_pass_those_that_wait() -> None:
    table = Table(alice="operator", bob="app")
    alice, bob = table.join("alice"), counting(table, "bob", 0)
    bob.say(wire.Serve(2, "app.clock"))
    publish(alice, b"1")
    alice.say(wire.Request(5, "app.clock", 99))
    alice.say(wire.Signal(bob.key, "app.wake"))
    heard = bob.say(wire.Ping(3))
    assert [type(command) for command in heard] == [
        wire.RequestDelivery, wire.SignalDelivery, wire.Pong,
    ]  # fmt: skip
    bob.say_later(wire.Credit(m=1))
    assert bodies(bob) == [b"1"]


def test_who_waits_for_credit_does_not_hold_up_others() -> None:
    table = Table(alice="app", bob="app", carol="app")
    alice, bob, carol = table.join("alice"), counting(table, "bob", 0), table.join("carol")
    carol.say(wire.Subscribe(1, 7, "app.>"))
    publish(alice, b"1", b"2")
    assert bodies(carol) == [b"1", b"2"]
    assert bodies(bob) == []


def test_what_waits_for_credit_is_not_delivered_to_a_later_subscription_of_the_same_sid() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), counting(table, "bob", 0)
    publish(alice, b"1")
    assert bob.say(wire.Unsubscribe(2, 7)) == [wire.Ok(2)]
    assert bob.say(wire.Subscribe(3, 7, "app.>")) == [wire.Ok(3)]
    publish(alice, b"2")
    bob.say_later(wire.Credit(m=9))
    assert bodies(bob) == [b"2"]
    assert (bob.session.outbox.messages, bob.session.outbox.bytes) == (0, 0)


def test_credit_without_a_hello_that_counts_is_refused_but_ends_nothing() -> None:
    alice = Table(alice="app").join("alice")
    assert refused(alice.say(wire.Credit(m=1))) == (400, "bad_request", None)
    assert alice.in_session


def test_credit_for_two_things_at_once_is_refused() -> None:
    alice = Table(alice="app").join("alice")
    assert refused(alice.say(wire.Credit(sid=1, ref=2, m=1))) == (400, "bad_request", None)


@pytest.mark.parametrize("fields", ["m", "credit"])
def test_a_grant_over_the_limit_is_no_frame(fields: str) -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    if fields == "m":
        heard = alice.say_raw(b"SB\x01\x18\x81\xa1m\xce\x00\x10\x00\x01")
    else:
        alice = table.dial("alice")
        heard = alice.say_raw(b"SB\x01\x01\x81\xa6credit\x81\xa1m\xce\x00\x10\x00\x01")
    assert isinstance(heard[0], wire.Error)
    assert heard[0].err == "bad_frame"
    assert alice.cut


def test_the_largest_grants_repeated_do_no_harm() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), counting(table, "bob", wire.MAX_WINDOW, 2**63 - 1)
    for _ in range(100):
        assert bob.say(wire.Credit(m=wire.MAX_WINDOW, b=2**63 - 1)) == []
    publish(alice, b"1")
    assert bodies(bob) == [b"1"]


def test_a_gap_says_which_of_a_subscriptions_messages_are_lost() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), table.join("bob")
    bob.say(wire.Subscribe(1, 7, "app.x", "drop_new"))
    publish(alice, b"1", b"2")
    assert bodies(bob) == [b"1", b"2"]
    bob.session.outbox._max_messages = 3
    bob.reading = False
    publish(alice, b"3", b"4", b"5", b"6", b"7")
    kept = table.resumes(bob)
    publish(alice, b"8")
    kept += bob.hears_bodies()
    told = [body if isinstance(c, wire.Delivery) else c for c, body in kept]
    assert told == [b"3", b"4", b"5", wire.Gap(7, 2, 6), b"8"]
