"""Dialogues: how sessions begin, live and end, and who may not have one."""

import random

import msgspec
import pytest
from zmq.utils import z85

from bus import signals, wire
from bus.access import AccessList
from bus.routing.sessions import HEARTBEAT, LIMITS, MAX_SESSIONS
from bus.signals import AccessEntry
from tests.support.dialogue import Peer, Table, decode, key_of, only, refused


def presence(peer: Peer, state: str, reason: str) -> signals.Presence:
    return signals.Presence(peer.key, "alice", state, reason)


def heard_presence(watcher: Peer) -> list[signals.Presence]:
    return [
        signals.unpack(body or b"", signals.Presence)
        for command, body in watcher.hears_bodies()
        if isinstance(command, wire.Delivery)
    ]


def watching(table: Table) -> Peer:
    watcher = table.join("watcher")
    watcher.say(wire.Subscribe(1, 1, "$SYS.presence.*"))
    return watcher


def test_hello_is_answered_by_welcome() -> None:
    table = Table(alice="app")
    alice = table.dial("alice")
    welcome = only(alice.say(wire.Hello(name="alice")), wire.Welcome)
    assert (welcome.key, welcome.roles, welcome.limits) == (key_of("alice"), ["app"], LIMITS)
    assert (welcome.hb, welcome.epoch, welcome.time) == (10_000, 1, 1_700_000_000_000)


@pytest.mark.parametrize(
    "command", [wire.Ping(), wire.Publish("app.x"), wire.Bye(), wire.Request(1, "$SYS.info", 9)]
)
def test_anything_before_hello_is_refused_but_not_cut(command: wire.Command) -> None:
    table = Table(alice="app")
    alice = table.dial("alice")
    assert refused(alice.say(command)) == (425, "hello_first", None)
    assert not alice.cut
    only(alice.say(wire.Hello()), wire.Welcome)


@pytest.mark.parametrize(
    ("head", "error"),
    [(b"", "bad_frame"), (b"GET / HTTP/1.1", "bad_frame"), (b"SB\x02\x01\x80", "version"),
     (b"SB\x01\x7f\x80", "bad_frame"), (b"SB\x01\x01" + bytes(5000), "too_large")],
)  # fmt: skip
def test_garbage_before_hello_is_refused_and_cut(head: bytes, error: str) -> None:
    alice = Table(alice="app").dial("alice")
    assert refused(alice.say_raw(head))[1] == error
    assert alice.cut


@pytest.mark.parametrize("rid", [b"\x00abcd", b"\x01" * 16, b"\x01" * 18, b"\x02" * 17, b""])
def test_a_routing_id_of_another_form_is_refused_with_the_way_out(rid: bytes) -> None:
    table = Table(alice="app")
    alice = table.dial("alice", rid)
    error = only(alice.say(wire.Hello()), wire.Error)
    assert (error.num, error.err) == (400, "bad_routing_id")
    assert "16 random bytes" in error.msg
    assert alice.cut
    assert len(table.router.sessions) == 0


def test_a_key_removed_between_handshake_and_hello_is_refused_and_cut() -> None:
    table = Table(alice="app")
    alice = table.dial("alice")
    table.router.replace_access(AccessList())
    assert refused(alice.say(wire.Hello())) == (401, "key_unknown", None)
    assert alice.cut


def test_a_second_hello_changes_nothing() -> None:
    alice = Table(alice="app").join("alice")
    assert refused(alice.say(wire.Hello(name="other"))) == (409, "conflict", None)
    assert alice.session.name == "alice"


def test_the_name_of_the_access_list_stands_in_for_a_missing_one() -> None:
    alice = Table(alice="app").dial("alice")
    alice.say(wire.Hello())
    assert alice.session.name == "alice"


def test_bye_is_answered_by_goodbye_and_the_cut() -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    goodbye = only(alice.say(wire.Bye("lunch")), wire.Goodbye)
    assert (goodbye.num, goodbye.reason) == (0, "lunch")
    assert alice.cut
    assert len(table.router.sessions) == 0


@pytest.mark.parametrize("head", [b"\xff" * 20, b"SB\x01\x10\x80", b"SB\x01\x02\x81\xa1t\xa1x"])
def test_garbage_in_a_session_is_told_then_ends_it(head: bytes) -> None:
    alice = Table(alice="app").join("alice")
    error, goodbye = alice.say_raw(head)
    assert isinstance(error, wire.Error)
    assert isinstance(goodbye, wire.Goodbye)
    assert error.num == goodbye.num == 400
    assert alice.cut


def test_too_many_frames_end_the_session() -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    table.router.malformed(alice.session, "three frames")
    error, goodbye = alice.hears()
    assert isinstance(error, wire.Error)
    assert (error.num, goodbye) == (400, wire.Goodbye(400, "three frames"))
    assert alice.cut


def test_the_routing_id_of_another_key_ends_its_session_and_cuts_the_thief() -> None:
    table = Table(alice="app", mallory="admin")
    alice = table.join("alice")
    thief = table.dial("mallory", alice.connection.rid)
    assert thief.say(wire.Hello()) == []
    assert thief.cut
    assert alice.cut
    assert not alice.in_session
    assert len(table.router.sessions) == 0
    assert table.router.sessions.denied["foreign_routing_id"] == 1


def test_a_thief_who_does_not_even_say_hello_is_cut_as_well() -> None:
    table = Table(alice="app", mallory="app")
    alice = table.join("alice")
    thief = table.dial("mallory", alice.connection.rid)
    thief.say_raw(b"whatever")
    assert thief.cut
    assert not alice.in_session


def test_a_reconnect_with_the_same_routing_id_has_to_say_hello_again() -> None:
    table = Table(alice="app")
    old = table.join("alice")
    old.say(wire.Subscribe(1, 1, "app.>"))
    new = table.dial("alice", old.connection.rid)
    assert refused(new.say(wire.Publish("app.x"))) == (425, "hello_first", None)
    assert old.cut
    assert not new.cut
    only(new.say(wire.Hello()), wire.Welcome)
    assert new.say(wire.Publish("app.x")) == []  # the old subscription is gone
    assert len(table.router.sessions) == 1


def test_ping_is_answered_with_its_number() -> None:
    alice = Table(alice="app").join("alice")
    assert alice.say(wire.Ping(77)) == [wire.Pong(77, epoch=1)]


def test_a_session_lives_as_long_as_it_is_heard() -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    for _ in range(10):
        table.passes(HEARTBEAT * 2)
        alice.say(wire.Ping())
    assert alice.in_session


def test_three_heartbeats_of_silence_end_a_session() -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    table.passes(HEARTBEAT * 3)
    assert alice.hears() == []
    table.passes(HEARTBEAT / 2)
    assert only(alice.hears(), wire.Goodbye).num == 408
    assert alice.cut


def test_a_lost_connection_ends_its_session_without_a_word() -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    table.router.disconnected(alice.connection.inode)
    assert alice.hears() == []
    assert not alice.in_session


def test_a_stopping_broker_says_goodbye_to_all() -> None:
    table = Table(alice="app", bob="app")
    peers = [table.join("alice"), table.join("bob")]
    table.router.lame("the broker is stopping")
    for peer in peers:
        assert peer.hears() == [wire.Goodbye(503, "the broker is stopping")]
        assert peer.cut


def test_a_removed_key_is_cut_at_once_in_all_its_sessions() -> None:
    table = Table(alice="app", bob="app")
    one, two, bob = table.join("alice"), table.join("alice"), table.join("bob")
    table.router.replace_access(table.router.sessions.access.without(key_of("alice")))
    for peer in (one, two):
        assert peer.hears() == []
        assert peer.cut
        assert not peer.in_session
    assert bob.in_session


def test_a_list_that_changes_nothing_for_a_key_leaves_its_session_alone() -> None:
    table = Table(alice="app")
    alice = table.join("alice")
    entry = AccessEntry(key_of("bob"), "bob", ["app"])
    table.router.replace_access(table.router.sessions.access.with_entry(entry))
    assert alice.in_session


def test_presence_tells_the_first_session_of_a_key_and_the_end_of_the_last() -> None:
    table = Table(alice="app", watcher="operator")
    watcher = watching(table)
    first, second = table.join("alice"), table.join("alice")
    assert heard_presence(watcher) == [presence(first, "online", "")]
    first.say(wire.Bye("moved"))
    assert heard_presence(watcher) == []
    second.say(wire.Bye("gone home"))
    assert heard_presence(watcher) == [presence(first, "offline", "gone home")]


def test_presence_comes_from_the_broker_on_a_subject_of_the_key_in_hex() -> None:
    table = Table(alice="app", watcher="operator")
    watcher = watching(table)
    alice = table.join("alice")
    delivery = only(watcher.hears(), wire.Delivery)
    assert delivery.s == f"$SYS.presence.{z85.decode(alice.key).hex()}"
    assert delivery.sender == table.router.sessions.info.key


def test_the_longest_texts_of_a_peer_never_make_a_head_over_the_limit() -> None:
    table = Table(alice="operator", watcher="operator")
    watching(table)
    alice = table.dial("alice")
    wide = "\U0001f600"
    alice.say(wire.Hello(name=wide * 64))
    alice.say(wire.Subscribe(1, 1, wide * 255))
    alice.say(wire.Publish(wide * 255))
    alice.say(wire.Subscribe(1, 1, "a", wide * 16))
    alice.say(wire.Request(3, wide * 255, 5))
    goodbye = alice.say(wire.Bye(wide * 255))[-1]
    assert isinstance(goodbye, wire.Goodbye)
    assert goodbye.reason.startswith(wide)


def test_random_heads_never_raise_out_of_the_router() -> None:
    chance = random.Random(7)
    table = Table(alice="admin", bob="app")
    for _ in range(2000):
        alice = table.dial("alice")
        if chance.random() < 0.5:
            alice.say(wire.Hello())
        for heard in alice.say_raw(chance.randbytes(chance.randrange(40))):
            decode(wire.encode(heard))
    assert table.join("bob").in_session


def test_a_key_may_not_open_sessions_without_end() -> None:
    table = Table(alice="app")
    for _ in range(MAX_SESSIONS):
        table.join("alice")
    one_more = table.dial("alice")
    error = only(one_more.say(wire.Hello()), wire.Error)
    assert (error.num, error.err) == (429, "limit")
    assert one_more.cut
    assert len(table.router.sessions) == MAX_SESSIONS


def test_sessions_of_one_key_share_what_the_broker_keeps_for_them() -> None:
    limits = msgspec.structs.replace(LIMITS, queue_bytes=10_000)
    table = Table(limits, greedy="app", quiet="app", writer="app")
    readers = [table.join("greedy") for _ in range(8)]
    quiet, writer = table.join("quiet"), table.join("writer")
    for number, reader in enumerate([*readers, quiet]):
        reader.say(wire.Subscribe(1, 2, f"topic.{number}", "drop_new"))
        reader.reading = False
    for number in range(9):
        for _ in range(5):
            writer.say(wire.Publish(f"topic.{number}"), bytes(1500))
    kept = sum(len(body or b"") for r in readers for _, body in table.resumes(r))
    assert 18_000 - 1_600 < kept <= 20_000  # twice the queue of one
    assert len(table.resumes(quiet)) == 5
