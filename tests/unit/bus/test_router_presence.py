"""Dialogues: last wills, events, what is kept of closed sessions, and kicks."""

from collections.abc import Callable

import msgspec
import pytest

from bus import signals, wire
from bus.routing.presence import MAX_CLOSED
from bus.routing.sessions import LIMITS
from bus.signals import AccessEntry, KickQuery, Rules
from tests.support.dialogue import Peer, Table, key_of, refused

End = Callable[[Table, Peer], None]


def with_will(table: Table, subject: str = "app.gone", body: bytes = b"farewell") -> Peer:
    return table.join("alice", wire.Hello(will=subject), body)


def listening(table: Table, *subjects: str, name: str = "watcher") -> Peer:
    peer = table.join(name)
    for sid, subject in enumerate(subjects):
        assert peer.say(wire.Subscribe(1, sid, subject)) == [wire.Ok(1)]
    return peer


def deliveries(peer: Peer) -> list[tuple[str, str, bytes]]:
    return [
        (command.s, command.sender, body or b"")
        for command, body in peer.hears_bodies()
        if isinstance(command, wire.Delivery)
    ]


def events(peer: Peer, *kinds: str) -> list[signals.Event]:
    found = [signals.unpack(body, signals.Event) for _, _, body in deliveries(peer)]
    return [event for event in found if event.what in kinds]


# Last wills.


def lost(table: Table, peer: Peer) -> None:
    table.router.disconnected(peer.connection.inode)


def silent(table: Table, peer: Peer) -> None:
    for _ in range(4):
        table.now += 10
        for session in table.router.sessions:
            if session is not peer.session:
                session.heard = table.now
    table.passes(0)


def kicked(table: Table, peer: Peer) -> None:
    boss = table.join("boss")
    assert boss.asks(signals.KICK, KickQuery(key=peer.key)) == {"count": 1}


def offended(_table: Table, peer: Peer) -> None:
    peer.say_raw(b"garbage")


@pytest.mark.parametrize("end", [lost, silent, kicked, offended])
def test_a_will_is_published_in_its_owners_name_when_the_session_ends(end: End) -> None:
    table = Table(alice="app", watcher="app", boss="operator")
    alice, watcher = with_will(table), listening(table, "app.>")
    end(table, alice)
    assert deliveries(watcher) == [("app.gone", alice.key, b"farewell")]
    assert not alice.in_session


def goodbye(_table: Table, peer: Peer) -> None:
    peer.say(wire.Bye("done"))


def stopped(table: Table, _peer: Peer) -> None:
    [watcher] = [s for s in table.router.sessions if s.name == "watcher"]
    first = [s for s in table.router.sessions if s is not watcher]
    for session in first:
        table.router.sessions.close(session, 503, "the broker is stopping")


def revoked(table: Table, peer: Peer) -> None:
    table.router.replace_access(table.router.sessions.access.without(peer.key))


@pytest.mark.parametrize("end", [goodbye, stopped, revoked])
def test_a_will_is_not_published_after_a_clean_end_or_a_revocation(end: End) -> None:
    table = Table(alice="app", watcher="app")
    alice, watcher = with_will(table), listening(table, "app.>")
    end(table, alice)
    assert deliveries(watcher) == []
    assert not alice.in_session


def test_a_will_that_the_key_may_not_publish_is_refused_at_hello() -> None:
    table = Table(alice="app")
    alice = table.dial("alice")
    assert refused(alice.say(wire.Hello(will="mesh.x"), b"")) == (403, "denied", None)
    assert alice.cut
    assert len(table.router.sessions) == 0
    assert table.router.sessions._budgets == {}


@pytest.mark.parametrize(("will", "size", "error"), [
    ("app.*", 1, (400, "bad_subject", None)), ("app.x", (64 << 10) + 1, (413, "too_large", None)),
])  # fmt: skip
def test_a_will_that_cannot_be_published_is_refused_at_hello(
    will: str, size: int, error: tuple[int, str, None]
) -> None:
    alice = Table(alice="app").dial("alice")
    assert refused(alice.say(wire.Hello(will=will), bytes(size))) == error
    assert alice.cut


def test_a_will_of_the_largest_size_is_taken_and_of_a_hello_without_one_nothing_is_kept() -> None:
    table = Table(alice="app")
    assert with_will(table, body=bytes(LIMITS.will)).session.will is not None
    assert table.join("alice", wire.Hello(), bytes(1000)).session.will is None


def test_a_will_that_is_no_longer_allowed_is_not_published() -> None:
    table = Table(alice="app", watcher="app")
    alice, watcher = with_will(table), listening(table, "app.>")
    entry = AccessEntry(alice.key, "alice", ["app"], deny=Rules(publish=["app.gone"]))
    table.router.replace_access(table.router.sessions.access.with_entry(entry))
    lost(table, alice)
    assert deliveries(watcher) == []


def test_wills_that_end_the_sessions_of_others_do_not_end_the_broker() -> None:
    table = Table(msgspec.structs.replace(LIMITS, queue_messages=2), alice="app", boss="operator")
    chain = []
    for _ in range(250):
        peer = with_will(table)
        peer.say(wire.Subscribe(1, 1, "app.gone", "disconnect"))
        peer.reading = False
        chain.append(peer)
    boss = table.join("boss")
    boss.say(wire.Publish("app.gone"))
    boss.say(wire.Publish("app.gone"))
    assert boss.asks(signals.KICK, KickQuery(session=chain[0].session.number)) == {"count": 1}
    assert len(table.router.sessions) == 1


# Events.


def test_the_beginning_and_the_end_of_sessions_are_told_with_number_and_reason() -> None:
    table = Table(alice="app", watcher="observer")
    watcher = listening(table, "$SYS.event.*")
    alice = table.join("alice")
    number = alice.session.number
    alice.say(wire.Bye("lunch"))
    opened, closed = events(watcher, "opened", "closed")
    assert opened == signals.Event("opened", alice.key, 1.7e9, "alice", number)
    assert closed == signals.Event("closed", alice.key, 1.7e9, "alice", number, 0, "lunch")


def test_a_lost_connection_is_told_by_a_number_that_no_goodbye_has() -> None:
    table = Table(alice="app", watcher="observer")
    watcher, alice = listening(table, "$SYS.event.closed"), table.join("alice")
    lost(table, alice)
    [event] = events(watcher, "closed")
    assert (event.num, event.reason) == (499, "connection lost")


def test_denied_acts_are_told_once_a_second_with_their_number() -> None:
    table = Table(alice="app", watcher="observer")
    watcher, alice = listening(table, "$SYS.event.denied"), table.join("alice")
    for _ in range(10):
        alice.say(wire.Publish("mesh.x"))
    table.passes(0)
    [first] = events(watcher, "denied")
    assert (first.key, first.num, first.count) == (alice.key, 403, 10)
    assert "publish mesh.x" in first.reason
    for _ in range(5):
        alice.say(wire.Publish("mesh.x"))
    table.passes(0.5)
    assert events(watcher, "denied") == []
    table.passes(0.6)
    assert [event.count for event in events(watcher, "denied")] == [5]
    table.passes(1)
    table.passes(1)
    assert table.router.presence.next_deadline is None
    assert table.router.presence._tallies == {}


def test_denied_acts_of_who_leaves_are_told_before_its_end() -> None:
    table = Table(alice="app", watcher="observer")
    watcher, alice = listening(table, "$SYS.event.*"), table.join("alice")
    alice.say(wire.Publish("mesh.x"))
    alice.say(wire.Bye())
    assert [e.what for e in events(watcher, "denied", "closed")] == ["denied", "closed"]
    assert table.router.presence._tallies == {}


def test_a_slow_reader_is_told_of_to_those_who_watch() -> None:
    table = Table(
        msgspec.structs.replace(LIMITS, queue_messages=10),
        alice="app", bob="app", watcher="observer",
    )  # fmt: skip
    watcher, alice = listening(table, "$SYS.event.slow"), table.join("alice")
    bob = listening(table, "app.>", name="bob")
    bob.reading = False
    for _ in range(12):
        alice.say(wire.Publish("app.x"))
    table.passes(0)
    [event] = events(watcher, "slow")
    assert (event.key, event.num) == (bob.key, 429)
    assert bob.session.info().lost == 5


def test_a_removed_key_is_told_as_revoked_and_as_closed() -> None:
    table = Table(alice="app", watcher="observer")
    watcher, alice = listening(table, "$SYS.event.*"), table.join("alice")
    events(watcher)
    revoked(table, alice)
    found = events(watcher, "revoked", "closed")
    assert [(e.what, e.key, e.num) for e in found] == [
        ("revoked", alice.key, 401), ("closed", alice.key, 401),
    ]  # fmt: skip


def test_an_app_may_not_hear_events() -> None:
    alice = Table(alice="app").join("alice")
    assert refused(alice.say(wire.Subscribe(1, 1, "$SYS.event.*"))) == (403, "denied", 1)


def test_the_last_closed_sessions_are_kept_newest_first_and_no_more() -> None:
    table = Table(alice="app")
    for number in range(MAX_CLOSED + 5):
        table.join("alice").say(wire.Bye(f"{number}"))
    closed = table.router.presence.closed
    assert len(closed) == MAX_CLOSED
    assert [c.reason for c in closed[:2]] == ["1004", "1003"]
    assert closed[-1].reason == "5"


# Kicks.


def test_a_kicked_session_hears_why_and_may_come_back() -> None:
    table = Table(alice="app", boss="operator")
    one, two, boss = table.join("alice"), table.join("alice"), table.join("boss")
    query = KickQuery(session=one.session.number, reason="too loud")
    assert boss.asks(signals.KICK, query) == {"count": 1}
    assert one.hears() == [wire.Goodbye(403, "kicked: too loud")]
    assert one.cut
    assert two.in_session
    assert boss.asks(signals.KICK, KickQuery(key=key_of("alice"))) == {"count": 1}
    assert two.hears() == [wire.Goodbye(403, "kicked")]
    assert table.join("alice").in_session


def test_a_kick_of_nobody_counts_none_and_of_everybody_is_refused() -> None:
    table = Table(alice="app", boss="operator")
    boss, alice = table.join("boss"), table.join("alice")
    assert boss.asks(signals.KICK, KickQuery(session=77)) == {"count": 0}
    query = KickQuery(key=key_of("boss"), session=alice.session.number)
    assert boss.asks(signals.KICK, query) == {"count": 0}
    error = boss.asks(signals.KICK, KickQuery(reason="all of you"))
    assert (error.num, error.err) == (400, "bad_body")
    assert "name a key or a session" in error.msg
    assert alice.in_session


def test_only_who_may_ask_for_a_kick_gets_one() -> None:
    table = Table(alice="app", bob="observer")
    alice = table.join("alice")
    for name in ("alice", "bob"):
        error = table.join(name).asks(signals.KICK, KickQuery(key=alice.key))
        assert (error.num, error.err) == (403, "denied")


def test_sessions_are_listed_with_what_they_hold() -> None:
    table = Table(alice="app", boss="operator")
    alice = table.join("alice", wire.Hello(name="a", lang="c", ver="9", credit=wire.Grant(0, 0)))
    alice.say(wire.Subscribe(1, 1, "app.>"))
    alice.say(wire.Serve(2, "app.clock"))
    boss = table.join("boss")
    boss.say(wire.Publish("app.x"), b"12345")
    [listed] = boss.asks(signals.SESSIONS, signals.SessionsQuery(alice.key))["sessions"]
    info = msgspec.convert(listed, signals.SessionInfo)
    assert (info.session, info.roles, info.lang, info.ver) == (1, ["app"], "c", "9")
    assert (info.subscriptions, info.services, info.queued, info.lost) == (1, 1, 1, 0)
    assert info.queued_bytes > 5
