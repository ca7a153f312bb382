"""Dialogues: requests that may be repeated, and get the same reply however often."""

import msgspec
import pytest

from bus import wire
from bus.routing.sessions import LIMITS
from bus.signals import AccessKey
from tests.support.dialogue import Peer, Table, only, refused

PAY = wire.Request(5, "app.pay", 2000, idem="bill-7")
STREAMS = wire.Hello(caps=[wire.STREAMS])


def shop(limits: wire.Limits = LIMITS) -> tuple[Table, Peer, Peer]:
    table = Table(limits, alice="app", bob="app", carol="app", root="admin")
    alice, bob = table.join("alice", STREAMS), table.join("bob", STREAMS)
    bob.say(wire.Serve(1, "app.*"))
    return table, alice, bob


def handle(peer: Peer) -> int:
    return only(peer.hears(), wire.RequestDelivery).r


def reply(ref: int, peer: Peer, body: bytes = b"paid") -> list[tuple[wire.Command, bytes]]:
    return [(wire.ReplyDelivery(ref, peer.key), body)]


def again(ref: int, **changes: object) -> wire.Request:
    return msgspec.structs.replace(PAY, id=ref, **changes)


def paid(alice: Peer, bob: Peer) -> None:
    alice.say(PAY, b"10")
    bob.say(wire.Reply(handle(bob)), b"paid")
    assert alice.hears_bodies() == reply(5, bob)


def test_repeated_it_gets_the_reply_that_was_kept_without_asking_anybody() -> None:
    table, alice, bob = shop()
    paid(alice, bob)
    for ref in (5, 6):
        alice.say_later(again(ref))
        assert alice.hears_bodies() == reply(ref, bob)
    assert bob.hears() == []
    assert alice.session.inflight == 0
    assert not table.router.requests.busy


def test_a_new_session_of_the_key_gets_it_even_when_the_worker_is_gone() -> None:
    table, alice, bob = shop()
    paid(alice, bob)
    alice.say(wire.Bye())
    bob.say(wire.Bye())
    alice = table.join("alice")
    alice.say_later(again(1))
    assert alice.hears_bodies() == reply(1, bob)


def test_a_refusal_is_kept_as_well() -> None:
    _, alice, bob = shop()
    alice.say(PAY)
    bob.say(wire.Reply(handle(bob), "no_money", "empty", 402), b"0")
    alice.hears()
    alice.say_later(again(6))
    assert alice.hears_bodies() == [
        (wire.ReplyDelivery(6, bob.key, "no_money", "empty", 402), b"0")
    ]


@pytest.mark.parametrize("other", [{"idem": "bill-8"}, {"s": "app.send"}])
def test_another_word_or_subject_is_another_request(other: dict[str, str]) -> None:
    _, alice, bob = shop()
    paid(alice, bob)
    alice.say(again(6, **other))
    assert handle(bob)


def test_another_key_with_the_same_word_is_another_request() -> None:
    table, alice, bob = shop()
    paid(alice, bob)
    carol = table.join("carol")
    assert carol.say(again(6)) == []
    bob.say(wire.Reply(handle(bob)), b"paid too")
    assert carol.hears_bodies() == reply(6, bob, b"paid too")


def test_repeated_before_the_reply_is_there_it_waits_for_the_same() -> None:
    _, alice, bob = shop()
    alice.say(PAY)
    given = handle(bob)
    alice.say(again(6))
    assert bob.hears() == []
    assert alice.session.inflight == 2
    bob.say(wire.Reply(given), b"paid")
    assert alice.hears_bodies() == reply(5, bob) + reply(6, bob)
    assert refused(bob.say(wire.Reply(given))) == (404, "no_request", None)


def test_a_requester_that_comes_back_gets_what_was_asked_before_it_left() -> None:
    table, alice, bob = shop()
    alice.say(PAY)
    given = handle(bob)
    table.router.disconnected(alice.connection.inode)
    assert bob.hears() == []  # not cancelled: it may be half done
    alice = table.join("alice")
    alice.say(again(1))
    assert bob.hears() == []
    bob.say(wire.Reply(given), b"paid")
    assert alice.hears_bodies() == reply(1, bob)


def test_the_reply_is_kept_for_a_requester_that_is_away() -> None:
    table, alice, bob = shop()
    alice.say(PAY)
    given = handle(bob)
    alice.say(wire.Bye())
    assert bob.say(wire.Reply(given), b"paid") == []
    alice = table.join("alice")
    alice.say_later(again(1))
    assert alice.hears_bodies() == reply(1, bob)


def test_a_reply_is_kept_for_two_minutes() -> None:
    table, alice, bob = shop()
    paid(alice, bob)
    for _ in range(8):
        table.passes(14)
        for peer in (alice, bob):
            peer.say(wire.Ping())
    alice.say_later(again(6))
    assert alice.hears_bodies() == reply(6, bob)
    table.passes(9)
    assert len(table.router.requests._replies) == 0
    alice.say(again(7))
    assert handle(bob)


def test_when_the_worker_leaves_another_is_asked_with_the_time_that_is_left() -> None:
    table, alice, bob = shop()
    alice.say(PAY, b"10")
    handle(bob)
    carol = table.join("carol")
    carol.say(wire.Serve(1, "app.pay"))
    table.passes(0.5)
    bob.say(wire.Bye())
    table.passes(0)
    [(request, body)] = carol.hears_bodies()
    assert isinstance(request, wire.RequestDelivery)
    assert (request.s, request.sender, request.dl, body) == ("app.pay", alice.key, 1500, b"10")
    carol.say(wire.Reply(request.r), b"paid")
    assert alice.hears_bodies() == reply(5, carol)


def test_what_waited_for_its_worker_is_whole_when_another_is_asked() -> None:
    table, alice, bob = shop()
    bob.say(wire.Serve(1, "app.*", inflight=1))
    alice.say(wire.Request(1, "app.other", 2000))
    first = handle(bob)
    alice.say(PAY, b"10")
    bob.say_later(wire.Reply(first))
    assert [body for _, body in bob.hears_bodies()] == [b"10"]
    carol = table.join("carol")
    carol.say(wire.Serve(1, "app.pay"))
    bob.say(wire.Bye())
    table.passes(0)
    assert [body for _, body in carol.hears_bodies()] == [b"10"]


def test_another_is_asked_with_the_longest_of_the_deadlines() -> None:
    table, alice, bob = shop()
    alice.say(PAY)
    alice.say(again(6, dl=9000))
    carol = table.join("carol")
    carol.say(wire.Serve(1, "app.pay"))
    table.passes(3)
    bob.say(wire.Bye())
    table.passes(0)
    assert only(carol.hears(), wire.RequestDelivery).dl == 6000


def test_when_the_worker_leaves_and_nobody_else_serves_it_fails() -> None:
    table, alice, bob = shop()
    alice.say(PAY)
    alice.say(again(6))
    bob.say(wire.Bye())
    table.passes(0)
    errors = [e for e in alice.hears() if isinstance(e, wire.Error)]
    assert [(e.num, e.err, e.ref) for e in errors] == [
        (404, "not_present", 5), (404, "not_present", 6),
    ]  # fmt: skip
    assert refused(alice.say(again(7))) == (404, "no_responders", 7)


def test_without_the_word_nobody_else_is_asked() -> None:
    table, alice, bob = shop()
    alice.say(wire.Request(5, "app.pay", 2000))
    carol = table.join("carol")
    carol.say(wire.Serve(1, "app.pay"))
    bob.say(wire.Bye())
    assert refused(alice.hears()) == (404, "not_present", 5)
    assert carol.hears() == []


def test_when_the_addressed_session_leaves_another_of_that_key_is_asked() -> None:
    table, _, bob = shop()
    root, second = table.join("root"), table.join("bob")
    root.say(again(5, to=bob.key))
    handle(second)  # the newest
    second.say(wire.Bye())
    table.passes(0)
    assert only(bob.hears(), wire.RequestDelivery).direct


def test_each_repeat_has_its_own_deadline_and_the_last_takes_the_request_back() -> None:
    table, alice, bob = shop()
    alice.say(PAY)
    given = handle(bob)
    alice.say(again(6, dl=5000))
    table.passes(2.1)
    assert refused(alice.hears()) == (408, "deadline", 5)
    assert bob.hears() == []
    table.passes(3)
    assert refused(alice.hears()) == (408, "deadline", 6)
    assert bob.hears() == [wire.CancelDelivery(given)]
    assert not table.router.requests._errands.promised


def test_the_longest_deadline_stands_though_its_session_is_gone() -> None:
    table, alice, bob = shop()
    alice.say(PAY)
    given = handle(bob)
    second = table.join("alice")
    second.say(again(1, dl=5000))
    second.say(wire.Bye())
    table.passes(2.1)
    assert refused(alice.hears()) == (408, "deadline", 5)
    bob.say(wire.Reply(given), b"paid")
    alice.say_later(again(7))
    assert alice.hears_bodies() == reply(7, bob)


def test_cancelled_by_one_it_goes_on_for_the_other_and_by_both_it_is_taken_back() -> None:
    table, alice, bob = shop()
    alice.say(PAY)
    given = handle(bob)
    alice.say(again(6))
    alice.say(wire.Cancel(5))
    assert bob.hears() == []
    alice.say(wire.Cancel(6))
    assert bob.hears() == [wire.CancelDelivery(given)]
    assert alice.hears() == []
    assert not table.router.requests._errands.promised


def test_a_reply_that_is_too_large_fails_all_and_is_not_kept() -> None:
    few = msgspec.structs.replace(LIMITS, payload=100)
    _, alice, bob = shop(few)
    alice.say(PAY)
    alice.say(again(6))
    bob.say(wire.Reply(handle(bob)), bytes(101))
    assert [e.err for e in alice.hears() if isinstance(e, wire.Error)] == ["too_large"] * 2
    alice.say(again(7))
    assert handle(bob)


def test_what_a_key_may_have_kept_for_repeating_is_bounded() -> None:
    small = msgspec.structs.replace(LIMITS, queue_bytes=100_000)
    table, alice, bob = shop(small)
    bob.say(wire.Serve(1, "app.*", inflight=1))
    refusals = [
        error.err
        for number in range(100)
        for error in alice.say(again(number, idem=f"{number}"), bytes(1000))
        if isinstance(error, wire.Error)
    ]
    assert set(refusals) == {"limit"}
    assert 60 < len(refusals) < 90
    alice.say(wire.Bye())  # what waits ends with it; what the worker has, with its deadline
    table.passes(2.1)
    assert len(table.router.requests._errands.holdings) == 0


def test_nothing_is_kept_of_a_key_that_is_revoked() -> None:
    table, alice, bob = shop()
    paid(alice, bob)
    root = table.join("root")
    root.asks("$SYS.access.remove", AccessKey(bob.key))
    assert refused(alice.say(again(6))) == (404, "no_responders", 6)


def test_what_a_revoked_key_asked_is_taken_back() -> None:
    table, alice, bob = shop()
    alice.say(PAY)
    given = handle(bob)
    table.join("root").asks("$SYS.access.remove", AccessKey(alice.key))
    assert bob.hears() == [wire.CancelDelivery(given)]
    assert not table.router.requests._errands.promised
