"""Dialogues: limits of workers, who waits for them, and whose turn it is."""

import msgspec
import pytest

from bus import wire
from bus.routing.offers import MAX_WAITING
from bus.routing.sessions import LIMITS
from tests.support.dialogue import Table, refused
from tests.support.office import ask, got, office, services


def test_a_worker_gets_no_more_at_once_than_it_said() -> None:
    table, alice, bob = office("bob", inflight=2)
    for ref in range(5):
        ask(alice, ref)
    [(one, first), (two, second)] = got(bob)
    assert (first, second) == (b"0", b"1")
    table.passes(0.5)
    bob.say_later(wire.Reply(two))
    [(request, body)] = bob.hears_bodies()
    assert isinstance(request, wire.RequestDelivery)
    assert (request.dl, body) == (1500, b"2")  # what waited longest, with what is left of its time
    bob.say_later(wire.Reply(one))
    assert [body for _, body in got(bob)] == [b"3"]
    assert len(alice.hears()) == 2


def test_the_worker_with_the_least_to_do_is_asked() -> None:
    _, alice, bob, carol = office("bob", "carol", inflight=0)
    for ref in range(6):
        ask(alice, ref)
    of_bob, of_carol = got(bob), got(carol)
    assert (len(of_bob), len(of_carol)) == (3, 3)
    for handle, _ in of_carol[:2]:
        carol.say(wire.Reply(handle))
    for ref in (7, 8):
        ask(alice, ref)
    assert (got(bob), len(got(carol))) == ([], 2)


def test_a_slow_worker_does_not_starve_a_fast_one() -> None:
    _table, alice, bob, carol = office("bob", "carol")
    for ref in range(20):
        ask(alice, ref)
    done = 0
    assert len(got(bob)) == 1  # and it never answers
    while found := got(carol):
        for handle, _ in found:
            carol.say_later(wire.Reply(handle))
            done += 1
    assert done == 19


def test_workers_with_as_much_to_do_take_turns() -> None:
    table, alice, bob, carol, dave = office("bob", "carol", "dave", inflight=0)
    for ref in range(9):
        ask(alice, ref)
        for peer in (bob, carol, dave):
            for handle, _ in got(peer):
                peer.say_later(wire.Reply(handle))
    assert {info["key"]: info["requests"] for info in services(table.join("root"))} == {
        peer.key: 3 for peer in (bob, carol, dave)
    }


def test_a_new_worker_takes_over_what_waits() -> None:
    table, alice, _bob = office("bob")
    for ref in range(3):
        ask(alice, ref)
    carol = table.join("carol")
    [ok, *asked] = carol.say(wire.Serve(1, "app.job", inflight=2))
    assert ok == wire.Ok(1)
    assert len(asked) == 2


def test_a_limit_that_is_raised_or_lifted_lets_in_what_waits() -> None:
    _table, alice, bob = office("bob")
    for ref in range(6):
        ask(alice, ref)
    assert len(got(bob)) == 1
    assert len(bob.say(wire.Serve(2, "app.job", inflight=3))) == 1 + 2
    assert len(bob.say(wire.Serve(3, "app.job"))) == 1 + 3
    assert bob.session.info().services == 1


def test_what_waits_for_two_patterns_goes_to_the_first_with_room() -> None:
    _table, alice, bob, carol = office("bob", "carol")
    carol.say(wire.Unserve(2, "app.job"))
    carol.say(wire.Serve(3, "app.*", inflight=1))
    for ref in range(4):
        ask(alice, ref)
    [(of_bob, _)], [(of_carol, _)] = got(bob), got(carol)
    carol.say_later(wire.Reply(of_carol))
    assert [body for _, body in got(carol)] == [b"2"]
    bob.say_later(wire.Reply(of_bob))
    assert [body for _, body in got(bob)] == [b"3"]


def test_a_request_that_waits_ends_at_its_deadline() -> None:
    table, alice, bob = office("bob")
    ask(alice, 1, 60)
    ask(alice, 2, 1)
    [(handle, _)] = got(bob)
    table.passes(1.1)
    assert refused(alice.hears()) == (408, "deadline", 2)
    bob.say(wire.Reply(handle))
    assert bob.hears() == []
    assert table.router.requests._errands.offers.waiting == 0


def test_a_request_that_waits_can_be_cancelled_or_ends_with_its_session() -> None:
    table, alice, bob = office("bob")
    other = table.join("alice")
    ask(alice, 1)
    ask(alice, 2)
    ask(other, 3)
    [(handle, _)] = got(bob)
    alice.say(wire.Cancel(2))
    other.say(wire.Bye())
    bob.say(wire.Reply(handle))
    assert bob.hears() == []
    assert table.router.requests._errands.offers.waiting == 0
    assert len(table.router.requests._errands.holdings) == 0


def test_cancelling_makes_room() -> None:
    _, alice, bob = office("bob")
    ask(alice, 1)
    ask(alice, 2)
    alice.say(wire.Cancel(1))
    assert [body for _, body in got(bob)] == [b"1", b"2"]


def test_a_deadline_makes_room() -> None:
    table, alice, bob = office("bob")
    ask(alice, 1, 1)
    ask(alice, 2, 3)
    table.passes(1.5)
    assert [body for _, body in got(bob)] == [b"1", b"2"]


def test_what_is_overdue_when_a_worker_gets_room_is_not_asked_any_more() -> None:
    table, alice, bob = office("bob")
    ask(alice, 1, 60)
    ask(alice, 2, 1)
    ask(alice, 3, 60)
    [(handle, _)] = got(bob)
    table.now += 2  # and the timer has not come to it yet
    bob.say_later(wire.Reply(handle))
    assert [body for _, body in got(bob)] == [b"3"]
    table.passes(0)
    assert [e.ref for e in alice.hears() if isinstance(e, wire.Error)] == [2]


def test_a_new_request_does_not_overtake_what_waited() -> None:
    table, alice, bob = office("bob")
    carol, dave = table.join("carol"), table.join("dave")
    ask(alice, 1)
    ask(carol, 2)
    alice.say(wire.Bye())
    ask(dave, 3)
    assert [body for _, body in got(bob)] == [b"1", b"2"]


@pytest.mark.parametrize("farewell", [wire.Bye(), wire.Unserve(9, "app.job")])
def test_what_waits_fails_when_the_last_who_serves_it_is_gone(farewell: wire.Command) -> None:
    table, alice, bob = office("bob")
    ask(alice, 1)
    ask(alice, 2)
    bob.say(farewell)
    errors = {e.ref: e.err for e in alice.hears() if isinstance(e, wire.Error)}
    assert errors.pop(2) == "no_responders"
    assert errors == ({1: "not_present"} if isinstance(farewell, wire.Bye) else {})
    assert table.router.requests._errands.offers.waiting == 0


def test_what_waits_stays_as_long_as_anybody_serves_it_by_any_pattern() -> None:
    table, alice, bob, carol = office("bob", "carol")
    carol.say(wire.Unserve(2, "app.job"))
    carol.say(wire.Serve(3, "app.>", inflight=1))
    for ref in range(3):
        ask(alice, ref)
    bob.say(wire.Unserve(4, "app.job"))
    assert alice.hears() == []
    [(handle, _)] = got(carol)
    carol.say_later(wire.Reply(handle))
    assert [body for _, body in got(carol)] == [b"2"]
    carol.say(wire.Unserve(4, "app.>"))
    assert table.router.requests._errands.offers._lines == {}


def test_who_serves_it_no_more_gets_nothing_more_however_much_room_it_has() -> None:
    _, alice, bob, carol = office("bob", "carol")
    for ref in range(4):
        ask(alice, ref)
    [(of_bob, _)], [(of_carol, _)] = got(bob), got(carol)
    bob.say(wire.Unserve(4, "app.job"))
    assert bob.say(wire.Reply(of_bob)) == []
    carol.say_later(wire.Reply(of_carol))
    assert [body for _, body in got(carol)] == [b"2"]


def test_a_worker_that_leaves_does_not_take_along_what_waits_for_others() -> None:
    _, alice, bob, carol = office("bob", "carol")
    for ref in range(3):
        ask(alice, ref)
    bob.say(wire.Bye())
    assert refused(alice.hears())[:2] == (404, "not_present")
    [(handle, _)] = got(carol)
    carol.say_later(wire.Reply(handle))
    assert [body for _, body in got(carol)] == [b"2"]


def test_the_line_of_a_subject_is_bounded() -> None:
    many = msgspec.structs.replace(LIMITS, inflight=10_000)
    _, alice, _bob = office("bob", limits=many)
    for ref in range(MAX_WAITING + 1):
        ask(alice, ref)
    assert alice.hears() == []
    ask(alice, 5000)
    assert refused(alice.hears()) == (429, "limit", 5000)


def test_bodies_that_wait_are_bounded_for_a_key() -> None:
    small = msgspec.structs.replace(LIMITS, queue_bytes=100_000)
    table, alice, _bob = office("bob", limits=small)
    second = table.join("alice")
    for number in range(100):
        for peer in (alice, second):
            peer.say_later(wire.Request(number, "app.job", 2000), bytes(5000))
    heard = [e for peer in (alice, second) for e in peer.hears() if isinstance(e, wire.Error)]
    assert {e.err for e in heard} == {"limit"}
    assert len(heard) > 180
    carol = table.join("carol")
    ask(carol, 1)  # another key still may
    assert carol.hears() == []


def test_a_worker_that_does_not_read_gets_no_more_and_goes_on_when_it_does() -> None:
    small = msgspec.structs.replace(LIMITS, queue_messages=20)
    table, alice, bob = office("bob", inflight=3, limits=small)
    ask(alice, 1)
    [(handle, _)] = got(bob)
    for ref in (2, 3, 4):
        ask(alice, ref)
    bob.reading = False
    for number in range(11):
        bob.say_later(wire.Ping(number))
    bob.say_later(wire.Reply(handle))  # there would be room for 4
    assert alice.hears() == [wire.ReplyDelivery(1, bob.key)]
    kept = [command for command, _ in table.resumes(bob)]
    assert [c.s for c in kept if isinstance(c, wire.RequestDelivery)] == ["app.job"] * 2
    ask(alice, 5)
    assert [body for _, body in got(bob)] == [b"5"]


def test_of_two_workers_one_that_does_not_read_is_left_out() -> None:
    small = msgspec.structs.replace(LIMITS, queue_messages=20)
    _, alice, bob, carol = office("bob", "carol", inflight=0, limits=small)
    bob.reading = False
    for number in range(11):
        bob.say_later(wire.Ping(number))
    for ref in range(4):
        ask(alice, ref)
    assert len(got(carol)) == 4


@pytest.mark.parametrize("policy", ["drop_old", "drop_new"])
def test_a_worker_whose_deliveries_wait_for_credit_is_asked_and_answers(policy: str) -> None:
    small = msgspec.structs.replace(LIMITS, queue_messages=40)
    table = Table(small, alice="app", bob="app")
    alice = table.join("alice")
    bob = table.join("bob", wire.Hello(credit=wire.Grant(1, 1000), caps=list(wire.CAPS)))
    bob.say(wire.Serve(1, "app.job"))
    bob.say(wire.Subscribe(2, 2, "app.news", policy))
    for number in range(200):
        alice.say(wire.Publish("app.news"))
        ask(alice, number)
        asked = [c for c in bob.hears() if isinstance(c, wire.RequestDelivery)]
        bob.say(wire.Reply(asked[0].r))
        assert alice.hears() == [wire.ReplyDelivery(number, bob.key)]


def test_the_room_that_a_requester_leaves_behind_is_used_at_once() -> None:
    table, alice, bob = office("bob")
    carol = table.join("carol")
    ask(alice, 1)
    ask(carol, 2)
    alice.say(wire.Bye())
    assert table.router.next_timer(table.now) == 0
    table.passes(0)
    assert [body for _, body in got(bob)] == [b"1", b"2"]
