"""Dialogues: what is told of services, and what becomes of requests when rights change."""

import msgspec
import pytest

from bus import wire
from bus.routing.sessions import LIMITS
from bus.signals import AccessEntry, AccessKey, Rules
from tests.support.dialogue import Table, key_of, only, refused
from tests.support.office import ask, got, office, services

NOTICES = wire.Hello(caps=[wire.NOTICES, wire.STREAMS])


# What is told of services.


def test_the_broker_tells_who_offers_what_and_how_it_went() -> None:
    table = Table(alice="app", bob="app", root="observer")
    alice, bob, root = table.join("alice"), table.join("bob"), table.join("root")
    offer = wire.Serve(1, "app.job", name="jobs", ver="1.2", desc="does jobs", inflight=2)
    bob.say(offer)
    for ref in range(4):
        ask(alice, ref, 60)
    [(one, _), (two, _)] = got(bob)
    table.passes(0.5)
    bob.say(wire.Reply(one))
    bob.say(wire.Reply(two, "failed", "", 500))
    [info] = services(root)
    assert info == {
        "subject": "app.job", "name": "jobs", "ver": "1.2", "desc": "does jobs", "key": bob.key,
        "session": bob.session.number, "limit": 2, "inflight": 2, "requests": 4, "errors": 1,
        "seconds": pytest.approx(1.0),
    }  # fmt: skip


def test_missed_deadlines_and_broken_rules_are_errors_and_what_was_cancelled_is_not() -> None:
    table, alice, bob = office("bob", inflight=0)
    for ref in range(3):
        ask(alice, ref)
    [_, (chunked, _), _] = got(bob)
    bob.say(wire.Reply(chunked, more=True))
    alice.say(wire.Cancel(2))
    table.passes(2.1)
    [info] = services(table.join("root"))
    assert (info["requests"], info["errors"], info["inflight"]) == (3, 2, 0)


def test_requests_to_a_key_count_for_no_service() -> None:
    table, _, bob = office("bob")
    root = table.join("root")
    for ref in range(3):
        root.say(wire.Request(ref, "app.job", 2000, bob.key))
    assert len(got(bob)) == 3  # nor are they limited by its
    assert services(root)[0]["requests"] == 0


def test_serving_again_tells_the_new_description() -> None:
    table, _, bob = office("bob")
    bob.say(wire.Serve(2, "app.job", name="new"))
    assert [(i["name"], i["limit"]) for i in services(table.join("root"))] == [("new", 0)]


def test_descriptions_of_any_script_fit_into_the_answer() -> None:
    table = Table(bob="app", root="admin")
    root = table.join("root")
    four = "\U0001f600"
    bob = table.join("bob")
    for number in range(1024):
        offer = wire.Serve(number, f"app.{number}", four * 64, four * 32, four * 255)
        assert bob.say(offer) == [wire.Ok(number)]
    root.say_later(wire.Request(1, "$SYS.services", 1000))
    [(_, body)] = root.hears_bodies()
    assert body is not None
    assert LIMITS.payload // 2 < len(body) <= LIMITS.payload


def test_services_are_bounded_for_each_session_and_one_of_them_may_be_served_again() -> None:
    few = msgspec.structs.replace(LIMITS, subscriptions=2)
    bob = Table(few, bob="app").join("bob")
    for number in (1, 2):
        assert bob.say(wire.Serve(number, f"app.{number}")) == [wire.Ok(number)]
    assert refused(bob.say(wire.Serve(3, "app.3"))) == (429, "limit", 3)
    assert bob.say(wire.Serve(4, "app.2")) == [wire.Ok(4)]


# Rights that change.


def test_a_service_that_is_not_allowed_any_more_ends_and_what_waited_fails() -> None:
    table = Table(alice="app", bob="app", root="admin")
    alice, root = table.join("alice"), table.join("root")
    bob = table.join("bob", NOTICES)
    bob.say(wire.Serve(1, "app.job", inflight=1))
    ask(alice, 1)
    ask(alice, 2)
    [(handle, _)] = got(bob)
    root.asks("$SYS.access.put", AccessEntry(bob.key, "bob", ["app"], deny=Rules(serve=["app.>"])))
    ended = only(bob.hears(), wire.Ended)
    assert (ended.num, ended.s, ended.sid) == (403, "app.job", None)
    assert refused(alice.hears()) == (404, "no_responders", 2)
    bob.say(wire.Reply(handle), b"done")
    assert alice.hears() == [wire.ReplyDelivery(1, bob.key)]


def test_what_may_not_be_asked_any_more_is_taken_back() -> None:
    table = Table(alice="app", bob="app", root="admin")
    alice, bob, root = table.join("alice"), table.join("bob", NOTICES), table.join("root")
    bob.say(wire.Serve(1, "app.job", inflight=1))
    ask(alice, 1)
    ask(alice, 2)
    [(handle, _)] = got(bob)
    entry = AccessEntry(alice.key, "alice", ["app"], deny=Rules(request=["app.job"]))
    root.asks("$SYS.access.put", entry)
    errors = [(e.num, e.err, e.ref) for e in alice.hears() if isinstance(e, wire.Error)]
    assert sorted(errors) == [(403, "denied", 1), (403, "denied", 2)]
    table.passes(0)
    assert bob.hears() == [wire.CancelDelivery(handle)]


def test_nothing_that_a_revoked_key_asked_is_delivered_after_it() -> None:
    table, alice, bob = office("bob")
    second = table.join("alice")
    for ref in (1, 2):
        ask(alice, ref)
    ask(second, 3)
    got(bob)
    table.join("root").asks("$SYS.access.remove", AccessKey(key_of("alice")))
    table.passes(0)
    assert bob.hears() == []
    carol = table.join("carol")
    ask(carol, 4)
    assert [body for _, body in got(bob)] == [b"4"]
