"""Dialogues: many requests in one REQUEST, many replies in one REPLY, and what sets one apart."""

import msgspec
import pytest

from bus import wire
from bus.routing.sessions import LIMITS
from bus.signals import AccessEntry
from tests.support.dialogue import Peer, Table, key_of, refused

HELLO = wire.Hello(caps=[wire.BATCHES, wire.STREAMS])
FEW = msgspec.structs.replace(LIMITS, payload=100, inflight=4)
THREE = [b"a", b"b", b"c"]


def table(limits: wire.Limits = LIMITS) -> tuple[Table, Peer, Peer]:
    found = Table(limits, alice="app", bob="app", carol="app")
    return found, found.join("alice", HELLO), serving(found.join("bob", HELLO))


def serving(peer: Peer, **more: int) -> Peer:
    assert peer.say(wire.Serve(1, "app.clock", **more)) == [wire.Ok(1)]
    return peer


def asks(peer: Peer, bodies: list[bytes], ref: int = 5) -> list[wire.Command]:
    return peer.say(wire.Request(ref, "app.clock", 2000, n=len(bodies)), wire.join(bodies))


def handles(peer: Peer) -> list[int]:
    found: list[int] = []
    for command in peer.hears():
        assert isinstance(command, wire.RequestDelivery)
        found += range(command.r, command.r + command.n)
    return found


def told(peer: Peer) -> list[tuple[int, bytes]]:
    """Each answer: to what, and its body."""
    found: list[tuple[int, bytes]] = []
    for command, body in peer.hears_bodies():
        assert isinstance(command, wire.ReplyDelivery)
        bodies = [body or b""] if command.n == 1 else wire.split(body or b"", command.n)
        found += enumerate(bodies, command.ref)
    return found


def test_a_batch_reaches_the_one_who_serves_as_it_is_and_so_do_its_replies() -> None:
    _, alice, bob = table()
    assert asks(alice, THREE) == []
    [(delivery, body)] = bob.hears_bodies()
    assert isinstance(delivery, wire.RequestDelivery)
    assert (delivery.n, delivery.sender, delivery.dl) == (3, alice.key, 2000)
    assert wire.split(body or b"", 3) == THREE
    bob.say(wire.Reply(delivery.r, n=3), wire.join([b"1", b"2", b"3"]))
    assert alice.hears_bodies() == [
        (wire.ReplyDelivery(5, bob.key, n=3), wire.join([b"1", b"2", b"3"]))
    ]


def test_its_replies_may_come_one_by_one_and_in_any_order() -> None:
    _, alice, bob = table()
    asks(alice, THREE)
    first, second, third = handles(bob)
    bob.say(wire.Reply(third), b"3")
    bob.say(wire.Reply(first, n=2), wire.join([b"1", b"2"]))
    assert told(alice) == [(7, b"3"), (5, b"1"), (6, b"2")]
    assert refused(bob.say(wire.Reply(second))) == (404, "no_request", None)


def test_replies_that_are_partly_given_already_are_told_apart() -> None:
    _, alice, bob = table()
    asks(alice, THREE)
    first, second, _ = handles(bob)
    bob.say(wire.Reply(second), b"2")
    errors = bob.say(wire.Reply(first, n=3), wire.join([b"1", b"again", b"3"]))
    assert refused(errors) == (404, "no_request", None)
    assert told(alice) == [(6, b"2"), (5, b"1"), (7, b"3")]


def test_one_of_a_batch_may_be_refused_by_who_answers() -> None:
    _, alice, bob = table()
    asks(alice, THREE)
    first, second, third = handles(bob)
    bob.say(wire.Reply(second, "conflict", "no", 409))
    bob.say(wire.Reply(first), b"1")
    bob.say(wire.Reply(third), b"3")
    assert alice.hears() == [
        wire.ReplyDelivery(6, bob.key, "conflict", "no", 409),
        wire.ReplyDelivery(5, bob.key), wire.ReplyDelivery(7, bob.key),
    ]  # fmt: skip


def test_one_of_a_batch_may_be_cancelled() -> None:
    _, alice, bob = table()
    asks(alice, THREE)
    _, second, _ = handles(bob)
    alice.say(wire.Cancel(6))
    assert bob.hears() == [wire.CancelDelivery(second)]
    assert refused(bob.say(wire.Reply(second))) == (404, "no_request", None)


def test_what_is_not_answered_at_the_deadline_is_told_for_each() -> None:
    about, alice, bob = table()
    asks(alice, THREE)
    bob.say(wire.Reply(handles(bob)[1]))
    assert len(told(alice)) == 1
    about.passes(2.1)
    assert [e.ref for e in alice.hears() if isinstance(e, wire.Error)] == [5, 7]
    assert alice.session.inflight == 0


def test_when_the_worker_leaves_each_is_told() -> None:
    _, alice, bob = table()
    asks(alice, THREE)
    bob.say(wire.Bye())
    assert {(e.err, e.ref) for e in alice.hears() if isinstance(e, wire.Error)} == {
        ("not_present", ref) for ref in (5, 6, 7)
    }


def test_when_the_caller_leaves_the_worker_is_told_of_each() -> None:
    _, alice, bob = table()
    asks(alice, THREE)
    asked = handles(bob)
    alice.say(wire.Bye())
    assert bob.hears() == [wire.CancelDelivery(handle) for handle in asked]


def test_a_caller_that_may_not_ask_any_more_is_told_for_each() -> None:
    about, alice, bob = table()
    asks(alice, THREE)
    handles(bob)
    access = about.router.sessions.access
    about.router.replace_access(
        access.with_entry(AccessEntry(key_of("alice"), "alice", ["observer"]))
    )
    assert [(e.err, e.ref) for e in alice.hears() if isinstance(e, wire.Error)] == [
        ("denied", ref) for ref in (5, 6, 7)
    ]


def test_a_batch_is_spread_where_several_serve() -> None:
    about, alice, bob = table()
    carol = serving(about.join("carol", HELLO))
    asks(alice, [b"x"] * 10)
    assert [len(handles(worker)) for worker in (bob, carol)] == [5, 5]


def test_a_batch_keeps_to_the_limit_of_who_serves() -> None:
    _, alice, bob = table()
    serving(bob, inflight=2)
    asks(alice, THREE)
    first, _ = handles(bob)
    bob.say_later(wire.Reply(first, n=2), wire.join([b"1", b"2"]))
    assert len(handles(bob)) == 1
    assert told(alice) == [(5, b"1"), (6, b"2")]


def test_who_does_not_know_batches_gets_one_by_one() -> None:
    about = Table(alice="app", bob="app")
    alice, bob = about.join("alice", HELLO), serving(about.join("bob"))
    asks(alice, THREE)
    asked = [c for c in bob.hears() if isinstance(c, wire.RequestDelivery)]
    assert [c.n for c in asked] == [1, 1, 1]
    plain = about.join("alice")
    asks(plain, THREE)
    first, *_ = handles(bob)
    bob.say(wire.Reply(first, n=3), wire.join(THREE))
    assert [c for c in plain.hears() if isinstance(c, wire.ReplyDelivery) and c.n == 1] != []


def test_each_of_a_batch_has_an_error_of_its_own() -> None:
    _, alice, bob = table(FEW)
    asks(alice, THREE)
    errors = [e for e in asks(alice, THREE, ref=7) if isinstance(e, wire.Error)]
    assert [(e.err, e.ref) for e in errors] == [("conflict", 7), ("limit", 9)]
    assert len(handles(bob)) == 4


@pytest.mark.parametrize(
    ("command", "body", "err"),
    [
        (wire.Request(5, "app.clock", 99, n=2), wire.join(THREE), "bad_frame"),
        (wire.Request(5, "app.clock", 99, n=2), b"\xdd\xff\xff\xff\xff", "bad_frame"),
        (wire.Request(5, "app.clock", 99, n=2, all=True), wire.join(THREE[:2]), "bad_request"),
        (wire.Request(5, "app.clock", 99, n=2, idem="x"), wire.join(THREE[:2]), "bad_request"),
        (wire.Request(5, "app.clock", 99, n=2, stream=1), wire.join(THREE[:2]), "bad_request"),
        (wire.Request(5, "app.clock", 99, n=2), wire.join([bytes(60)] * 2), "too_large"),
        (wire.Request(5, "app.none", 99, n=2), wire.join(THREE[:2]), "no_responders"),
        (wire.Request(5, "node.x", 99, n=2), wire.join(THREE[:2]), "denied"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_is_refused_for_each(
    command: wire.Request, body: bytes, err: str
) -> None:
    _, alice, bob = table(FEW)
    errors = [(e.err, e.ref) for e in alice.say(command, body) if isinstance(e, wire.Error)]
    assert errors == [(err, 5), (err, 6)]
    assert bob.hears() == []


def test_ids_beyond_the_last_are_refused() -> None:
    _, alice, _ = table()
    errors = alice.say(wire.Request(2**63 - 1, "app.clock", 99, n=2), wire.join(THREE[:2]))
    assert refused(errors) == (400, "bad_request", 2**63 - 1)


def test_the_broker_itself_is_not_asked_in_batches() -> None:
    ada = Table(ada="admin").join("ada", HELLO)
    errors = ada.say(wire.Request(5, "$SYS.info", 99, n=2), wire.join(THREE[:2]))
    assert [(e.err, e.ref) for e in errors if isinstance(e, wire.Error)] == [
        ("bad_request", 5), ("bad_request", 6)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "body", "err"),
    [
        ({}, wire.join(THREE[:2]), "bad_frame"),
        ({"err": "x"}, wire.join(THREE), "bad_request"),
        ({"more": True}, wire.join(THREE), "bad_request"),
        ({}, wire.join([bytes(60)] * 3), "too_large"),
    ],
)
def test_replies_that_cannot_be_are_refused_and_leave_the_requests_as_they_are(
    more: dict[str, object], body: bytes, err: str
) -> None:
    _, alice, bob = table(FEW)
    asks(alice, THREE)
    first = handles(bob)[0]
    [error] = bob.say(msgspec.convert({"r": first, "n": 3, **more}, wire.Reply), body)
    assert isinstance(error, wire.Error)
    assert error.err == err
    bob.say(wire.Reply(first, n=3), wire.join(THREE))
    assert [ref for ref, _ in told(alice)] == [5, 6, 7]


def test_the_handles_of_a_batch_are_worth_nothing_to_others() -> None:
    about, alice, bob = table()
    carol = about.join("carol", HELLO)
    asks(alice, THREE)
    first = handles(bob)[0]
    errors = carol.say(wire.Reply(first, n=3), wire.join(THREE))
    assert [e.err for e in errors if isinstance(e, wire.Error)] == ["no_request"] * 3
    assert alice.hears() == []


def test_one_of_a_batch_is_no_stream() -> None:
    _, alice, bob = table()
    asks(alice, THREE)
    first, *rest = handles(bob)
    [error] = bob.say(wire.Reply(first, more=True), b"chunk")
    assert isinstance(error, wire.Error)
    assert error.err == "not_streamed"
    bob.say(wire.Reply(rest[0], n=2), wire.join(THREE[:2]))
    kinds = [type(c) for c in alice.hears()]
    assert kinds == [wire.Error, wire.ReplyDelivery, wire.ReplyDelivery]
