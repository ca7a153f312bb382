"""Dialogues: requests to everybody who serves a subject."""

import msgspec
import pytest

from bus import wire
from bus.routing.sessions import LIMITS
from tests.support.dialogue import BROKER_KEY, Peer, Table, only, refused

WHO = wire.Request(5, "app.who", 2000, all=True)
LAST = (wire.ReplyDelivery(5, BROKER_KEY), b"")
STREAMS = wire.Hello(caps=[wire.STREAMS])


def three(limits: wire.Limits = LIMITS) -> tuple[Table, Peer, Peer, Peer]:
    """Table, requester and two who serve what it will ask, by different patterns."""
    table = Table(limits, alice="app", bob="app", carol="app")
    alice, bob, carol = (table.join(name, STREAMS) for name in ("alice", "bob", "carol"))
    bob.say(wire.Serve(1, "app.who"))
    carol.say(wire.Serve(1, "app.>"))
    return table, alice, bob, carol


def handle(peer: Peer) -> int:
    return only(peer.hears(), wire.RequestDelivery).r


def answer(peer: Peer, body: bytes) -> tuple[wire.Command, bytes]:
    return wire.ReplyDelivery(5, peer.key, more=True), body


def test_everybody_who_serves_is_asked_and_the_last_word_is_the_brokers() -> None:
    _, alice, bob, carol = three()
    assert alice.say(WHO, b"who?") == []
    [(request, body)] = carol.hears_bodies()
    assert isinstance(request, wire.RequestDelivery)
    assert (request.s, request.sender, request.dl, body) == ("app.who", alice.key, 2000, b"who?")
    carol.say(wire.Reply(request.r), b"carol")
    assert alice.hears_bodies() == [answer(carol, b"carol")]
    bob.say(wire.Reply(handle(bob)), b"bob")
    assert alice.hears_bodies() == [answer(bob, b"bob"), LAST]
    assert alice.session.inflight == 0


def test_a_session_that_serves_it_by_two_patterns_is_asked_once() -> None:
    _, alice, bob, carol = three()
    carol.say(wire.Serve(2, "app.*"))
    alice.say(WHO)
    carol.say(wire.Reply(handle(carol)))
    bob.say(wire.Reply(handle(bob)))
    assert [c.more for c in alice.hears() if isinstance(c, wire.ReplyDelivery)] == [
        True, True, False,
    ]  # fmt: skip


def test_a_refusal_is_an_answer_among_others() -> None:
    _, alice, bob, carol = three()
    alice.say(WHO)
    bob.say(wire.Reply(handle(bob), "busy", "later", 429))
    assert alice.hears() == [wire.ReplyDelivery(5, bob.key, "busy", "later", 429, more=True)]
    carol.say(wire.Reply(handle(carol)))
    assert alice.hears_bodies() == [answer(carol, b""), LAST]


def test_nobody_serves() -> None:
    alice = Table(alice="app").join("alice")
    assert refused(alice.say(WHO)) == (404, "no_responders", 5)


def test_the_deadline_ends_it_and_takes_back_what_is_not_answered() -> None:
    table, alice, bob, carol = three()
    alice.say(WHO)
    bob.say(wire.Reply(handle(bob)), b"bob")
    alice.hears()
    late = handle(carol)
    table.passes(2.1)
    assert alice.hears_bodies() == [LAST]
    assert carol.hears() == [wire.CancelDelivery(late)]
    assert refused(carol.say(wire.Reply(late))) == (404, "no_request", None)
    assert alice.hears() == []


def test_who_leaves_is_waited_for_no_more() -> None:
    _, alice, bob, carol = three()
    alice.say(WHO)
    bob.say(wire.Reply(handle(bob)), b"bob")
    carol.say(wire.Bye())
    assert alice.hears_bodies() == [answer(bob, b"bob"), LAST]


@pytest.mark.parametrize("by_chunk", [True, False])
def test_who_breaks_the_rules_is_waited_for_no_more(by_chunk: bool) -> None:
    few = msgspec.structs.replace(LIMITS, payload=100)
    _, alice, bob, carol = three(few)
    alice.say(WHO)
    if by_chunk:
        chunk = wire.Reply(handle(bob), more=True)
        assert refused(bob.say(chunk)) == (400, "not_streamed", None)
    else:
        assert bob.say(wire.Reply(handle(bob)), bytes(101)) == []
    assert alice.hears() == []
    carol.say(wire.Reply(handle(carol)), b"carol")
    assert alice.hears_bodies() == [answer(carol, b"carol"), LAST]


def test_cancelled_it_is_taken_back_from_everybody() -> None:
    _, alice, bob, carol = three()
    alice.say(WHO)
    handles = {peer: handle(peer) for peer in (bob, carol)}
    assert alice.say(wire.Cancel(5)) == []
    for peer, given in handles.items():
        assert peer.hears() == [wire.CancelDelivery(given)]
        assert refused(peer.say(wire.Reply(given))) == (404, "no_request", None)
    assert alice.hears() == []
    assert alice.session.inflight == 0


def test_who_has_no_room_is_asked_as_soon_as_it_has() -> None:
    _, alice, bob, carol = three()
    carol.say(wire.Serve(2, "app.>", inflight=1))
    bob.say(wire.Unserve(2, "app.who"))
    alice.say(wire.Request(1, "app.other", 2000))
    first = handle(carol)
    alice.say(WHO, b"who?")
    assert carol.hears() == []
    carol.say_later(wire.Reply(first), b"done")
    [(request, body)] = carol.hears_bodies()
    assert isinstance(request, wire.RequestDelivery)
    assert (request.s, body) == ("app.who", b"who?")
    carol.say(wire.Reply(request.r), b"carol")
    assert alice.hears_bodies()[1:] == [answer(carol, b"carol"), LAST]


def test_one_who_does_not_read_is_left_out() -> None:
    small = msgspec.structs.replace(LIMITS, queue_messages=20)
    _, alice, bob, carol = three(small)
    carol.reading = False
    for number in range(11):
        carol.say_later(wire.Ping(number))
    alice.say(WHO)
    bob.say(wire.Reply(handle(bob)), b"bob")
    assert alice.hears_bodies() == [answer(bob, b"bob"), LAST]


def test_it_counts_as_one_request_in_flight() -> None:
    few = msgspec.structs.replace(LIMITS, inflight=1)
    _, alice, bob, carol = three(few)
    alice.say(WHO)
    assert refused(alice.say(wire.Request(6, "app.who", 99))) == (429, "limit", 6)
    bob.say(wire.Reply(handle(bob)))
    carol.say(wire.Reply(handle(carol)))
    assert len(alice.hears()) == 3
    assert alice.say(wire.Request(6, "app.who", 99)) == []


@pytest.mark.parametrize(
    "request_",
    [wire.Request(5, "app.who", 99, to="k" * 40, all=True),
     wire.Request(5, "app.who", 99, stream=1, all=True),
     wire.Request(5, "app.who", 99, idem="x", all=True),
     wire.Request(5, "app.who", 99, idem="x", stream=1)],
)  # fmt: skip
def test_what_excludes_each_other_is_refused(request_: wire.Request) -> None:
    _, alice, bob, carol = three()
    assert refused(alice.say(request_)) == (400, "bad_request", 5)
    assert bob.hears() == carol.hears() == []
    assert alice.session.inflight == 0


def test_asking_all_again_and_again_is_bounded_for_a_key() -> None:
    small = msgspec.structs.replace(LIMITS, queue_bytes=100_000)
    table, alice, _, _ = three(small)
    refusals = [
        error
        for number in range(100)
        for error in alice.say(msgspec.structs.replace(WHO, id=number))
        if isinstance(error, wire.Error)
    ]
    assert {error.err for error in refusals} == {"limit"}
    alice.say(wire.Bye())
    assert len(table.router.requests._errands.holdings) == 0
