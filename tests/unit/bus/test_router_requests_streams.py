"""Dialogues: replies in chunks, the credit for them, and requests that are cancelled."""

import msgspec
import pytest

from bus import wire
from bus.routing.sessions import LIMITS
from tests.support.dialogue import Peer, Table, only, refused

FEW = msgspec.structs.replace(LIMITS, payload=100, inflight=2)
STREAMS = wire.Hello(caps=[wire.STREAMS])


def streaming(
    window: int = 2, limits: wire.Limits = LIMITS, hello: wire.Hello = STREAMS
) -> tuple[Table, Peer, Peer, int]:
    """Table, requester, answerer and handle of a streamed reply to request 5."""
    table = Table(limits, alice="app", bob="app")
    alice, bob = table.join("alice", STREAMS), table.join("bob", hello)
    assert bob.say(wire.Serve(1, "app.log")) == [wire.Ok(1)]
    alice.say(wire.Request(5, "app.log", 2000, stream=window))
    request = only(bob.hears(), wire.RequestDelivery)
    assert request.stream == (window if wire.STREAMS in hello.caps else 0)
    return table, alice, bob, request.r


def chunk(peer: Peer, body: bytes, *, more: bool = True) -> tuple[wire.Command, bytes]:
    return wire.ReplyDelivery(5, peer.key, more=more), body


def test_a_streamed_reply_comes_in_order_and_ends_with_the_one_without_more() -> None:
    _, alice, bob, handle = streaming()
    for body in (b"one", b"two"):
        assert bob.say(wire.Reply(handle, more=True), body) == []
    bob.say(wire.Reply(handle), b"")
    assert alice.hears_bodies() == [
        chunk(bob, b"one"), chunk(bob, b"two"), chunk(bob, b"", more=False),
    ]  # fmt: skip
    assert refused(bob.say(wire.Reply(handle, more=True), b"late")) == (404, "no_request", None)
    assert alice.hears() == []


def test_a_refusal_ends_a_stream_even_if_it_says_that_more_will_come() -> None:
    _, alice, bob, handle = streaming()
    bob.say(wire.Reply(handle, "gone", "the log was deleted", 410, more=True))
    assert alice.hears() == [wire.ReplyDelivery(5, bob.key, "gone", "the log was deleted", 410)]
    assert refused(bob.say(wire.Reply(handle))) == (404, "no_request", None)


def test_credit_is_told_to_the_worker_and_lets_it_go_on() -> None:
    _, alice, bob, handle = streaming(window=1)
    bob.say(wire.Reply(handle, more=True), b"one")
    assert alice.say(wire.Credit(ref=5, m=2)) == [wire.ReplyDelivery(5, bob.key, more=True)]
    assert bob.hears() == [wire.CreditDelivery(handle, 2)]
    for _ in range(2):
        assert bob.say(wire.Reply(handle, more=True)) == []
    assert refused(bob.say(wire.Reply(handle, more=True))) == (429, "credit", None)


def test_more_chunks_than_were_granted_end_the_stream_for_both() -> None:
    _, alice, bob, handle = streaming(window=1)
    bob.say(wire.Reply(handle, more=True), b"one")
    assert refused(bob.say(wire.Reply(handle, more=True), b"two")) == (429, "credit", None)
    [first, error] = alice.hears()
    assert first == wire.ReplyDelivery(5, bob.key, more=True)
    assert refused([error]) == (429, "credit", 5)
    assert refused(bob.say(wire.Reply(handle))) == (404, "no_request", None)
    assert alice.session.inflight == 0


def test_a_chunk_of_what_is_no_stream_fails_the_request() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice", STREAMS), table.join("bob", STREAMS)
    bob.say(wire.Serve(1, "app.log"))
    alice.say(wire.Request(5, "app.log", 2000))
    handle = only(bob.hears(), wire.RequestDelivery).r
    assert refused(bob.say(wire.Reply(handle, more=True), b"x")) == (400, "not_streamed", None)
    assert refused(alice.hears()) == (400, "not_streamed", 5)
    assert refused(bob.say(wire.Reply(handle))) == (404, "no_request", None)


def test_a_chunk_over_the_limit_ends_the_stream_for_both() -> None:
    _, alice, bob, handle = streaming(limits=FEW)
    assert refused(bob.say(wire.Reply(handle, more=True), bytes(101))) == (413, "too_large", None)
    assert refused(alice.hears()) == (413, "too_large", 5)


def test_who_streams_may_answer_in_one_reply() -> None:
    _, alice, bob, handle = streaming()
    bob.say(wire.Reply(handle), b"all of it")
    assert alice.hears_bodies() == [chunk(bob, b"all of it", more=False)]


def test_nobody_else_can_add_a_chunk() -> None:
    _, alice, _, handle = streaming()
    assert refused(alice.say(wire.Reply(handle, more=True))) == (404, "no_request", None)
    assert alice.hears() == []


def test_credit_never_grows_over_what_can_be_said() -> None:
    _, alice, bob, handle = streaming(window=64)
    most = wire.MAX_WINDOW
    alice.say(wire.Credit(ref=5, m=most))
    alice.say(wire.Credit(ref=5, m=most))
    assert bob.hears() == [wire.CreditDelivery(handle, most - 64)]
    bob.say(wire.Reply(handle, more=True))
    alice.say(wire.Credit(ref=5, m=most))
    assert bob.hears() == [wire.CreditDelivery(handle, 1)]


@pytest.mark.parametrize("credit", [wire.Credit(ref=6, m=1), wire.Credit(ref=5, m=0)])
def test_credit_for_what_is_over_or_of_nothing_is_ignored(credit: wire.Credit) -> None:
    _, alice, bob, _ = streaming()
    assert alice.say(credit) == []
    assert bob.hears() == []


def test_credit_for_a_request_that_is_no_stream_is_ignored() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice", STREAMS), table.join("bob", STREAMS)
    bob.say(wire.Serve(1, "app.log"))
    alice.say(wire.Request(5, "app.log", 2000))
    handle = only(bob.hears(), wire.RequestDelivery).r
    assert alice.say(wire.Credit(ref=5, m=9)) == []
    assert bob.hears() == []
    assert refused(bob.say(wire.Reply(handle, more=True))) == (400, "not_streamed", None)


def test_a_worker_without_the_capability_hears_of_no_stream_no_credit_and_no_cancel() -> None:
    _, alice, bob, handle = streaming(hello=wire.Hello())
    alice.say(wire.Credit(ref=5, m=1))
    alice.say(wire.Cancel(5))
    assert bob.hears() == []
    assert refused(bob.say(wire.Reply(handle))) == (404, "no_request", None)


def test_a_cancelled_request_is_told_to_its_worker_and_nobody_hears_more_of_it() -> None:
    _, alice, bob, handle = streaming()
    assert alice.say(wire.Cancel(5)) == []
    assert bob.hears() == [wire.CancelDelivery(handle)]
    assert refused(bob.say(wire.Reply(handle))) == (404, "no_request", None)
    assert alice.hears() == []
    assert alice.session.inflight == 0
    assert alice.say(wire.Cancel(5)) == []  # again, as when it crosses with the reply


def test_the_id_of_a_cancelled_request_may_be_used_again() -> None:
    _, alice, bob, _ = streaming()
    alice.say(wire.Cancel(5))
    bob.hears()
    alice.say(wire.Request(5, "app.log", 2000))
    bob.say(wire.Reply(only(bob.hears(), wire.RequestDelivery).r), b"second")
    assert alice.hears_bodies() == [chunk(bob, b"second", more=False)]


def test_an_id_that_waits_for_its_answer_is_refused_a_second_time() -> None:
    _, alice, bob, handle = streaming()
    assert refused(alice.say(wire.Request(5, "app.log", 2000))) == (409, "conflict", 5)
    bob.say(wire.Reply(handle), b"first")
    assert alice.hears_bodies() == [chunk(bob, b"first", more=False)]


def test_the_worker_is_told_when_the_requester_ends() -> None:
    table, alice, bob, handle = streaming()
    table.router.disconnected(alice.connection.inode)
    assert bob.hears() == [wire.CancelDelivery(handle)]
    assert refused(bob.say(wire.Reply(handle, more=True))) == (404, "no_request", None)


def test_the_worker_is_told_when_the_deadline_passes() -> None:
    table, alice, bob, handle = streaming()
    bob.say(wire.Reply(handle, more=True), b"one")
    alice.hears()
    table.passes(2.1)
    assert refused(alice.hears()) == (408, "deadline", 5)
    assert bob.hears() == [wire.CancelDelivery(handle)]


def test_a_stream_whose_worker_leaves_fails() -> None:
    table, alice, bob, handle = streaming()
    bob.say(wire.Reply(handle, more=True), b"one")
    alice.hears()
    table.router.disconnected(bob.connection.inode)
    assert refused(alice.hears()) == (404, "not_present", 5)


def test_credit_cannot_fill_the_queue_of_a_worker_that_does_not_read() -> None:
    small = msgspec.structs.replace(LIMITS, queue_messages=100)
    _, alice, bob, _ = streaming(window=1, limits=small)
    bob.reading = False
    for _ in range(200):
        heard = alice.say(wire.Credit(ref=5, m=1))
        if heard:
            break
    assert refused(heard) == (429, "limit", 5)
    assert bob.in_session


def test_a_worker_that_does_not_read_is_not_ended_by_what_is_asked_of_it() -> None:
    small = msgspec.structs.replace(LIMITS, queue_messages=100)
    table = Table(small, alice="operator", bob="app")
    alice, bob = table.join("alice", STREAMS), table.join("bob", STREAMS)
    bob.say(wire.Serve(1, "app.log"))
    bob.reading = False
    for number in range(200):
        alice.say(wire.Request(number, "app.log", 2000))
        alice.say(wire.Cancel(number))
    assert bob.in_session
    assert refused(alice.say(wire.Request(5, "app.log", 2000))) == (429, "limit", 5)
    assert refused(alice.say(wire.Request(5, "signal.ping", 2000, bob.key))) == (429, "limit", 5)
    bob.reading = True
    table.resumes(bob)
    assert alice.say(wire.Request(5, "app.log", 2000)) == []
    assert only(bob.hears(), wire.RequestDelivery).s == "app.log"
