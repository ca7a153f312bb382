"""Dialogues: requests, replies, deadlines, handles, and the requests that the broker answers."""

import msgspec
import pytest

from bus import wire
from bus.access import ROLES
from bus.routing.handles import Handles
from bus.routing.sessions import LIMITS
from bus.signals import (
    MAX_PAGE,
    AccessEntry,
    AccessKey,
    SessionInfo,
    Sessions,
    SessionsQuery,
    pack,
)
from tests.support.dialogue import BROKER_KEY, Peer, Table, key_of, only, refused

FEW = msgspec.structs.replace(LIMITS, payload=100, inflight=2)


def serving(peer: Peer, subject: str = "app.clock") -> Peer:
    assert peer.say(wire.Serve(1, subject)) == [wire.Ok(1)]
    return peer


def asked(peer: Peer) -> wire.RequestDelivery:
    return only(peer.hears(), wire.RequestDelivery)


def test_a_request_reaches_its_service_and_the_reply_the_requester() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    assert alice.say(wire.Request(5, "app.clock", 2000), b"utc?") == []
    [(request, body)] = bob.hears_bodies()
    assert isinstance(request, wire.RequestDelivery)
    assert (request.s, request.sender, request.dl) == ("app.clock", alice.key, 2000)
    assert (request.direct, body) == (False, b"utc?")
    assert bob.say(wire.Reply(request.r), b"12:00") == []
    assert alice.hears_bodies() == [(wire.ReplyDelivery(5, bob.key), b"12:00")]


def test_a_request_to_a_key_says_so() -> None:
    table = Table(alice="operator", bob="app")
    alice, bob = table.join("alice"), table.join("bob")
    alice.say(wire.Request(5, "signal.ping", 2000, bob.key))
    assert asked(bob).direct


def test_a_refusal_travels_whole() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    alice.say(wire.Request(5, "app.clock", 2000))
    bob.say(wire.Reply(asked(bob).r, "conflict", "being set", 409), b"more")
    assert alice.hears_bodies() == [
        (wire.ReplyDelivery(5, bob.key, "conflict", "being set", 409), b"more")
    ]


def test_the_longest_refusal_is_shortened_rather_than_breaking_the_broker() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    alice.say(wire.Request(2**63 - 1, "app.clock", 2000))
    bob.say(wire.Reply(asked(bob).r, "x", "\U0001f600" * 1010, 409))
    reply = only(alice.hears(), wire.ReplyDelivery)
    assert reply.msg == "\U0001f600" * 256


def test_nobody_serves() -> None:
    alice = Table(alice="app").join("alice")
    assert refused(alice.say(wire.Request(5, "app.x", 99))) == (404, "no_responders", 5)


def test_the_key_is_not_there() -> None:
    alice = Table(alice="operator").join("alice")
    request = wire.Request(5, "signal.ping", 99, key_of("bob"))
    assert refused(alice.say(request)) == (404, "not_present", 5)


def test_requests_are_spread_over_those_who_serve() -> None:
    table = Table(alice="app", bob="app", carol="app")
    alice = table.join("alice")
    workers = [serving(table.join("bob")), serving(table.join("carol"), "app.*")]
    for number in range(10):
        alice.say(wire.Request(number, "app.clock", 2000))
    assert [len(worker.hears()) for worker in workers] == [5, 5]


def test_serving_twice_is_one_service_and_unserving_is_always_ok() -> None:
    table = Table(alice="app")
    alice = serving(serving(table.join("alice")))
    assert alice.say(wire.Unserve(2, "app.clock")) == [wire.Ok(2)]
    assert alice.say(wire.Unserve(3, "app.clock")) == [wire.Ok(3)]
    assert refused(alice.say(wire.Request(5, "app.clock", 99))) == (404, "no_responders", 5)


def test_a_request_ends_at_its_deadline_and_a_late_reply_is_told() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    alice.say(wire.Request(5, "app.clock", 2000))
    assert table.router.next_timer(table.now) <= 2.0
    table.passes(1.9)
    assert alice.hears() == []
    table.passes(0.2)
    assert refused(alice.hears()) == (408, "deadline", 5)
    assert refused(bob.say(wire.Reply(asked(bob).r))) == (404, "no_request", None)
    assert alice.hears() == []


def test_a_handle_works_once() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    alice.say(wire.Request(5, "app.clock", 2000))
    handle = asked(bob).r
    bob.say(wire.Reply(handle))
    assert refused(bob.say(wire.Reply(handle), b"again")) == (404, "no_request", None)
    assert len(alice.hears()) == 1


def test_the_handle_of_another_session_is_worth_nothing() -> None:
    table = Table(alice="app", bob="app", mallory="admin")
    alice, bob, mallory = table.join("alice"), serving(table.join("bob")), table.join("mallory")
    second = table.join("bob")  # not even another session of the same key
    alice.say(wire.Request(5, "app.clock", 2000))
    handle = asked(bob).r
    for thief in (mallory, second, alice):
        assert refused(thief.say(wire.Reply(handle), b"forged")) == (404, "no_request", None)
    bob.say(wire.Reply(handle), b"true")
    assert alice.hears_bodies() == [(wire.ReplyDelivery(5, bob.key), b"true")]


def test_handles_of_another_start_of_the_broker_are_far_away() -> None:
    first, second = Handles(1).take(), Handles(2).take()
    assert abs(first - second) >= 2**15
    assert 0 < Handles(2**48 - 1).take() < 2**63


def test_a_worker_that_leaves_is_told_to_the_requester_at_once() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    alice.say(wire.Request(5, "app.clock", 2000))
    table.router.disconnected(bob.connection.inode)
    error = only(alice.hears(), wire.Error)
    assert (error.num, error.err, error.ref) == (404, "not_present", 5)
    assert "bob left before it replied" in error.msg


def test_the_reply_to_a_requester_that_left_goes_nowhere() -> None:
    table = Table(alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    alice.say(wire.Request(5, "app.clock", 2000))
    alice.say(wire.Bye())
    assert refused(bob.say(wire.Reply(asked(bob).r))) == (404, "no_request", None)
    table.passes(5)


def test_a_reply_over_the_limit_fails_the_request() -> None:
    table = Table(FEW, alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    alice.say(wire.Request(5, "app.clock", 2000))
    assert bob.say(wire.Reply(asked(bob).r), bytes(101)) == []
    assert refused(alice.hears()) == (413, "too_large", 5)


def test_requests_in_flight_are_limited_and_every_end_frees_one() -> None:
    table = Table(FEW, alice="app", bob="app")
    alice, bob = table.join("alice"), serving(table.join("bob"))
    for number in (1, 2):
        alice.say(wire.Request(number, "app.clock", 2000))
    assert refused(alice.say(wire.Request(3, "app.clock", 99))) == (429, "limit", 3)
    handles = [r.r for r in bob.hears() if isinstance(r, wire.RequestDelivery)]
    bob.say(wire.Reply(handles[0]))  # by a reply
    alice.say(wire.Request(4, "app.clock", 1000))
    table.passes(3)  # by the deadline
    assert alice.session.inflight == 0
    alice.say(wire.Request(5, "app.clock", 2000))
    bob.say(wire.Bye())  # by the worker's end
    assert alice.session.inflight == 0


def test_deadlines_of_answered_requests_do_not_pile_up() -> None:
    table = Table(alice="app")
    alice = serving(table.join("alice"))
    for number in range(5000):
        [request] = alice.say(wire.Request(number, "app.clock", 86_400_000))
        assert isinstance(request, wire.RequestDelivery)
        alice.say(wire.Reply(request.r))
    assert len(table.router.requests._errands.handles._deadlines) <= 1100


# Requests to the broker.


def test_the_broker_tells_what_it_is() -> None:
    table = Table(alice="operator", bob="app")
    alice, _ = table.join("alice"), table.join("bob")
    info = alice.asks("$SYS.info")
    assert (info["key"], info["sessions"], info["pid"]) == (BROKER_KEY, 2, 42)


def test_the_broker_tells_who_is_there_and_what_they_used() -> None:
    table = Table(alice="operator", bob="app")
    alice, bob = table.join("alice"), table.join("bob")
    bob.say(wire.Subscribe(1, 1, "app.>"))
    bob.say(wire.Publish("app.x"), bytes(1000))
    everybody = alice.asks("$SYS.sessions")["sessions"]
    assert {s["name"] for s in everybody} == {"alice", "bob"}
    [one] = alice.asks("$SYS.sessions", SessionsQuery(bob.key))["sessions"]
    assert (one["key"], one["since"], one["subscriptions"]) == (bob.key, 1.7e9, 1)
    assert (one["messages_in"], one["bytes_in"] > 1000) == (2, True)
    assert alice.asks("$SYS.sessions", SessionsQuery(key_of("nobody"))) == {
        "sessions": [],
        "left": 0,
    }


def test_sessions_are_told_in_pages_in_the_order_in_which_they_were_opened() -> None:
    table = Table(alice="operator", bob="app")
    alice = table.join("alice")
    bobs = [table.join("bob").session.number for _ in range(4)]
    numbers = [alice.session.number, *bobs]
    told: list[int] = []
    for query in (SessionsQuery(limit=2), SessionsQuery(after=numbers[1], limit=2)):
        page = msgspec.convert(alice.asks("$SYS.sessions", query), Sessions)
        told += [session.session for session in page.sessions]
    assert (told, page.left) == (numbers[:4], 1)
    assert page.rest == SessionsQuery(after=numbers[3])
    last = msgspec.convert(alice.asks("$SYS.sessions", page.rest), Sessions)
    assert [session.session for session in last.sessions] == numbers[4:]
    assert last.rest is None
    of_bob = alice.asks("$SYS.sessions", SessionsQuery(key_of("bob"), after=bobs[0], limit=2))
    assert ([s["session"] for s in of_bob["sessions"]], of_bob["left"]) == (bobs[1:3], 1)


def test_a_page_of_sessions_that_say_all_they_may_fits_in_a_body() -> None:
    longest, most = "\U0010ffff", 2**63 - 1
    loud = SessionInfo(
        key_of("loud"), longest * 64, 1.7e9, most, most, most, most, most, most, list(ROLES),
        longest * 32, longest * 32, most, most, most, most,
    )  # fmt: skip
    assert len(pack(Sessions([loud] * MAX_PAGE, most))) < LIMITS.payload


def test_who_asks_for_everybody_gets_no_more_than_a_page() -> None:
    table = Table(alice="operator", **{f"n{i}": "app" for i in range(5)})
    alice = table.join("alice")
    for i in range(5):
        for _ in range(MAX_PAGE // 5):
            table.join(f"n{i}")
    first = alice.asks("$SYS.sessions")
    assert (len(first["sessions"]), first["left"]) == (MAX_PAGE, 1)


def test_an_admin_allows_lists_and_forbids_keys() -> None:
    table = Table(alice="admin")
    alice = table.join("alice")
    entry = AccessEntry(key_of("bob"), "bob", ["app"])
    assert alice.asks("$SYS.access.put", entry) == {}
    assert [e["name"] for e in alice.asks("$SYS.access.list")["keys"]] == ["alice", "bob"]
    bob = table.join("bob")
    assert alice.asks("$SYS.access.remove", AccessKey(bob.key)) == {}
    assert bob.hears() == []
    assert bob.cut
    assert [len(saved.entries) for saved in table.saved] == [2, 1]


@pytest.mark.parametrize("subject", ["put", "remove", "list"])
def test_only_an_admin_decides_who_belongs(subject: str) -> None:
    alice = Table(alice=["operator", "manager"]).join("alice")
    error = alice.asks(f"$SYS.access.{subject}", AccessKey(alice.key))
    assert (error.num, error.err) == (403, "denied")


@pytest.mark.parametrize(
    ("subject", "body"),
    [("$SYS.access.put", AccessEntry("x", "n", ["app"])), ("$SYS.access.put", AccessKey("x")),
     ("$SYS.access.put", AccessEntry("\U0001f600" * 5000, "n", ["app"])),
     ("$SYS.access.put", AccessEntry("k" * 40, "n", ["\U0001f600" * 5000])),
     ("$SYS.access.remove", None), ("$SYS.sessions", [1]),
     ("$SYS.sessions", {"limit": 0}), ("$SYS.sessions", {"limit": 1001})],
)  # fmt: skip
def test_a_body_that_the_broker_cannot_accept_is_told(subject: str, body: object) -> None:
    table = Table(alice="admin")
    error = table.join("alice").asks(subject, body)
    assert (error.num, error.err, error.ref) == (400, "bad_body", 99)
    assert table.saved == []


def test_an_unknown_system_subject_is_not_served() -> None:
    error = Table(alice="admin").join("alice").asks("$SYS.nothing")
    assert (error.num, error.err) == (404, "no_responders")


def test_a_list_that_cannot_be_saved_is_not_in_force() -> None:
    table = Table(alice="admin", bob="app")
    alice, bob = table.join("alice"), table.join("bob")
    table.save_error = OSError(28, "No space left on device")
    error = alice.asks("$SYS.access.remove", AccessKey(bob.key))
    assert (error.num, error.err) == (500, "internal")
    assert "No space left" in error.msg
    assert bob.in_session


def test_an_admin_who_removes_itself_is_cut() -> None:
    table = Table(alice="admin")
    alice = table.join("alice")
    alice.say_later(
        wire.Request(9, "$SYS.access.remove", 99), b"\x81\xa3key\xd9\x28" + alice.key.encode()
    )
    assert alice.hears() == []
    assert alice.cut
    assert not alice.in_session


def test_an_answer_of_the_broker_is_no_larger_than_what_it_takes() -> None:
    table = Table(FEW, alice="admin")
    alice = table.join("alice")
    assert refused(alice.say(wire.Request(5, "$SYS.sessions", 99))) == (413, "too_large", 5)
    assert alice.in_session
