"""Dialogues: what becomes of sessions when rights change, and when the broker is about to stop."""

import pytest

from bus import signals, wire
from bus.access import AccessList
from bus.signals import AccessEntry, Rules
from tests.support.dialogue import Table, key_of, only, refused

NOTED = wire.Hello(caps=["notices"])


def change(table: Table, name: str, *roles: str, deny: Rules | None = None) -> None:
    entry = AccessEntry(key_of(name), name, list(roles), deny=deny)
    table.router.replace_access(table.router.sessions.access.with_entry(entry))


def test_a_session_whose_rights_grow_lives_on_with_the_new_ones() -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    assert refused(alice.say(wire.Publish("mesh.x"))) == (403, "denied", None)
    change(table, "alice", "operator")
    assert alice.say(wire.Publish("mesh.x", id=3)) == [wire.Ok(3)]


def test_what_a_session_may_no_longer_have_is_taken_away_and_told() -> None:
    table = Table(alice="operator", bob="app")
    alice, bob = table.join("alice", NOTED), table.join("bob")
    alice.say(wire.Subscribe(1, 7, "mesh.>"))
    alice.say(wire.Subscribe(2, 8, "app.>"))
    alice.say(wire.Serve(3, "mesh.clock"))
    change(table, "alice", "app")
    reason = "the rights of this key have changed"
    assert sorted(alice.hears(), key=repr) == sorted(
        [wire.Ended(403, "mesh.>", 7, reason), wire.Ended(403, "mesh.clock", None, reason)],
        key=repr,
    )
    assert bob.say(wire.Publish("app.x", id=1)) == [wire.Ok(1)]
    assert only(alice.hears(), wire.Delivery).sid == 8
    assert refused(alice.say(wire.Publish("mesh.x"))) == (403, "denied", None)


def test_what_waits_for_a_subscription_that_is_taken_away_is_not_delivered() -> None:
    table = Table(alice="operator", bob="admin")
    alice, bob = table.join("alice", NOTED), table.join("bob")
    alice.say(wire.Subscribe(1, 7, "mesh.>"))
    alice.say(wire.Subscribe(1, 8, "app.>"))
    alice.reading = False
    for subject in ("mesh.x", "app.x", "mesh.y"):
        bob.say(wire.Publish(subject))
    change(table, "alice", "app")
    kept = [command for command, _ in table.resumes(alice)]
    assert [type(command) for command in kept] == [wire.Delivery, wire.Ended]
    assert kept[0] == wire.Delivery(8, "app.x", bob.key)


def test_a_session_that_does_not_know_of_ended_is_closed_instead() -> None:
    table = Table(alice="operator")
    alice = table.join("alice")
    alice.say(wire.Subscribe(1, 7, "mesh.>"))
    alice.say(wire.Subscribe(2, 8, "mesh.x"))
    change(table, "alice", "app")
    assert alice.hears() == [wire.Goodbye(403, "the rights of this key have changed")]
    assert alice.cut


def test_a_new_deny_holds_for_live_subscriptions_that_stay() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice", NOTED), table.join("bob")
    alice.say(wire.Subscribe(1, 7, "app.>"))
    bob.say(wire.Publish("app.secret"))
    assert len(alice.hears()) == 1
    change(table, "alice", "app", deny=Rules(subscribe=["app.secret"]))
    bob.say(wire.Publish("app.secret"))
    bob.say(wire.Publish("app.open"))
    assert [c.s for c in alice.hears() if isinstance(c, wire.Delivery)] == ["app.open"]


def test_a_queue_group_goes_on_without_a_member_that_lost_the_right() -> None:
    table = Table(alice="operator", bob="operator")
    alice, bob = table.join("alice", NOTED), table.join("bob")
    for peer in (alice, bob):
        peer.say(wire.Subscribe(1, 7, "mesh.>", q="w"))
    change(table, "alice", "app")
    only(alice.hears(), wire.Ended)
    for _ in range(3):
        bob.say_later(wire.Publish("mesh.x"))
    assert len(bob.hears()) == 3


def test_one_list_is_swapped_in_whole() -> None:
    table = Table(alice="app", bob="app", carol="app")
    alice, bob, carol = (table.join(name, NOTED) for name in ("alice", "bob", "carol"))
    bob.say(wire.Subscribe(1, 7, "topic.>"))
    table.router.replace_access(
        AccessList([
            AccessEntry(bob.key, "bob", ["app"], deny=Rules(subscribe=["topic.>"])),
            AccessEntry(carol.key, "carol", ["admin"]),
        ])
    )  # fmt: skip
    assert alice.hears() == []
    assert alice.cut
    assert only(bob.hears(), wire.Ended).sid == 7
    assert carol.asks(signals.ACCESS_LIST)["keys"][0]["name"] == "bob"


# The drain.


def test_a_draining_broker_tells_those_who_want_to_know_and_takes_nothing_new() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice", NOTED), table.join("bob")
    table.router.drain(2.0, "the broker is stopping", table.now)
    assert alice.hears() == [wire.Notice(2000, "the broker is stopping")]
    assert bob.hears() == []
    assert refused(alice.say(wire.Request(1, "app.x", 99))) == (503, "draining", 1)
    assert refused(alice.say(wire.Subscribe(2, 1, "app.x"))) == (503, "draining", 2)
    late = table.dial("alice")
    assert refused(late.say(wire.Hello())) == (503, "draining", None)
    assert late.cut
    assert alice.say(wire.Publish("app.x", id=3)) == [wire.Ok(3)]
    assert table.router.drained


def test_a_drain_is_over_when_the_last_reply_has_passed() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), table.join("bob")
    bob.say(wire.Serve(1, "app.clock"))
    alice.say(wire.Request(5, "app.clock", 99_000))
    request = only(bob.hears(), wire.RequestDelivery)
    table.router.drain(2.0, "stop", table.now)
    assert not table.router.drained
    bob.say(wire.Reply(request.r), b"noon")
    assert table.router.drained
    assert [body for _, body in alice.hears_bodies()] == [b"noon"]


# Commands that nobody carries out.


@pytest.mark.parametrize(
    "command",
    [wire.Pull(7, "t", "c"), wire.Settle("t", "c", [1], id=7), wire.Read(7, "t"), wire.Enrol(7)],
    ids=lambda c: type(c).__name__,
)
def test_a_command_that_nobody_carries_out_is_refused_by_name(command: wire.Command) -> None:
    alice = Table(alice="app").join("alice")
    error = only(alice.say(command), wire.Error)
    assert (error.num, error.err, error.ref) == (501, "unsupported", 7)
    assert type(command).__name__.upper() in error.msg
    assert alice.in_session
