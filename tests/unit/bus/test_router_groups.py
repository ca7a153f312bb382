"""Dialogues: queue groups, whose members share what is published."""

import msgspec
import pytest

from bus import wire
from bus.access import AccessList
from bus.routing.sessions import LIMITS
from bus.signals import AccessEntry, Rules
from tests.support.dialogue import Peer, Table, key_of, refused

SMALL = msgspec.structs.replace(LIMITS, group_messages=5, group_bytes=10_000)


def member(
    table: Table, name: str, window: int = 0, *, sid: int = 7, q: str = "w", pattern: str = "app.>"
) -> Peer:
    peer = table.join(name)
    joined = peer.say(wire.Subscribe(1, sid, pattern, q=q, window=window))
    assert joined[0] == wire.Ok(1)
    peer.inbox = []
    return peer


def heard_bodies(peer: Peer) -> list[bytes]:
    """The bodies that were delivered, those of batches one by one."""
    found = []
    for command, body in peer.hears_bodies():
        if isinstance(command, wire.Delivery):
            found += [body or b""] if command.n == 1 else wire.split(body or b"", command.n)
    return found


def publish(peer: Peer, first: int, last: int) -> None:
    for number in range(first, last + 1):
        peer.say_later(wire.Publish("app.x"), b"%d" % number)


def numbers(first: int, last: int, step: int = 1) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1, step)]


def team(window: int = 0, limits: wire.Limits = LIMITS) -> tuple[Table, Peer, Peer, Peer]:
    table = Table(limits, alice="app", ann="app", bea="app", cyd="app")
    return table, table.join("alice"), member(table, "ann", window), member(table, "bea", window)


def test_each_message_goes_to_one_member_in_turn() -> None:
    _, alice, ann, bea = team()
    publish(alice, 1, 6)
    assert [heard_bodies(ann), heard_bodies(bea)] == [numbers(1, 6, 2), numbers(2, 6, 2)]


def test_a_batch_is_split_and_shared() -> None:
    _, alice, ann, bea = team()
    alice.say_later(wire.Publish("app.x", 5), wire.join(numbers(1, 5)))
    assert [heard_bodies(ann), heard_bodies(bea)] == [numbers(1, 5, 2), numbers(2, 5, 2)]


def test_a_batch_that_is_none_is_refused_when_a_group_listens_and_nobody_gets_it() -> None:
    table, alice, ann, _ = team()
    carol = table.join("cyd")
    carol.say(wire.Subscribe(1, 7, "app.>"))
    assert refused(alice.say(wire.Publish("app.x", 3, id=9), b"junk")) == (400, "bad_frame", 9)
    assert carol.hears() == []
    assert ann.hears() == []
    assert alice.in_session


def test_who_subscribes_without_a_group_gets_all_and_groups_of_other_names_share_apart() -> None:
    table, alice, ann, bea = team()
    other = member(table, "cyd", q="other")
    plain = table.join("cyd")
    plain.say(wire.Subscribe(1, 7, "app.*"))
    publish(alice, 1, 2)
    assert heard_bodies(ann) + heard_bodies(bea) == numbers(1, 2)
    assert heard_bodies(other) == heard_bodies(plain) == numbers(1, 2)


def test_a_member_gets_no_more_than_its_window_until_it_gives_back() -> None:
    table = Table(alice="app", ann="app")
    alice, ann = table.join("alice"), member(table, "ann", window=2)
    publish(alice, 1, 5)
    assert heard_bodies(ann) == numbers(1, 2)
    ann.say_later(wire.Credit(sid=7, m=1))
    assert heard_bodies(ann) == numbers(3, 3)
    ann.say_later(wire.Credit(sid=7, m=2))
    assert heard_bodies(ann) == numbers(4, 5)


def test_a_window_cannot_be_raised_by_giving_back_more() -> None:
    table = Table(alice="app", ann="app")
    alice, ann = table.join("alice"), member(table, "ann", window=2)
    ann.say_later(wire.Credit(sid=7, m=wire.MAX_WINDOW))
    publish(alice, 1, 5)
    assert heard_bodies(ann) == numbers(1, 2)


def test_a_slow_member_does_not_starve_a_fast_one() -> None:
    _, alice, slow, fast = team(window=3)
    got: list[bytes] = []
    for number in range(1, 101):
        publish(alice, number, number)
        taken = heard_bodies(fast)
        got += taken
        fast.say_later(wire.Credit(sid=7, m=len(taken)))
    assert heard_bodies(slow) == numbers(1, 5, 2)
    assert len(got) == 97


def test_what_nobody_has_room_for_waits_in_order_for_the_first_who_has() -> None:
    _, alice, ann, bea = team(window=1)
    publish(alice, 1, 6)
    assert [heard_bodies(ann), heard_bodies(bea)] == [numbers(1, 1), numbers(2, 2)]
    for number in range(3, 7):
        bea.say_later(wire.Credit(sid=7, m=1))
        assert heard_bodies(bea) == numbers(number, number)


def test_a_member_that_joins_takes_what_waits_as_one_batch() -> None:
    table, alice, *_ = team(window=1)
    publish(alice, 1, 6)
    cyd = table.join("cyd")
    cyd.say_later(wire.Subscribe(1, 7, "app.>", q="w", window=3))
    heard = cyd.hears_bodies()
    assert [command for command, _ in heard] == [
        wire.Ok(1), wire.Delivery(7, "app.x", alice.key, 3),
    ]  # fmt: skip
    assert wire.split(heard[1][1] or b"", 3) == numbers(3, 5)


def test_the_groups_queue_is_bounded_and_the_next_served_is_told_what_is_lost() -> None:
    _, alice, ann, bea = team(window=1, limits=SMALL)
    publish(alice, 1, 12)
    assert [heard_bodies(ann), heard_bodies(bea)] == [numbers(1, 1), numbers(2, 2)]
    bea.say_later(wire.Credit(sid=7, m=1))
    [(gap, _), (delivery, body)] = bea.hears_bodies()
    assert gap == wire.Gap(7, 5, 3)
    assert (delivery, body) == (wire.Delivery(7, "app.x", alice.key), b"8")
    assert bea.session.info().lost == 5
    ann.say_later(wire.Credit(sid=7, m=1))
    assert heard_bodies(ann) == [b"9"]


def test_the_bytes_of_a_groups_queue_are_bounded() -> None:
    table = Table(SMALL, alice="app", ann="app")
    alice, ann = table.join("alice"), member(table, "ann", window=1)
    publish(alice, 1, 1)
    for _ in range(3):
        alice.say(wire.Publish("app.x"), bytes(4000))
    [group] = table.router.publishing._groups._groups.values()
    assert (len(group.waiting), group.lost) == (2, 1)
    assert heard_bodies(ann) == [b"1"]


def test_all_groups_of_one_key_share_what_the_broker_keeps_for_them() -> None:
    table = Table(SMALL, alice="app", ann="app", bea="app")
    alice = table.join("alice")
    for number in range(8):
        member(table, "ann", 1, pattern=f"app.a{number}")
    quiet = member(table, "bea", 1, pattern="app.quiet")
    for subject in [*(f"app.a{n}" for n in range(8)), "app.quiet"]:
        for _ in range(3):
            alice.say(wire.Publish(subject), bytes(4000))
    groups = table.router.publishing._groups
    assert groups._budgets[key_of("ann")].used <= 20_000
    assert groups._budgets[quiet.key].used > 8000


def test_a_member_whose_outbox_is_full_is_passed_over_and_comes_back_when_it_reads() -> None:
    table, alice, slow, fast = team()
    slow.reading = False
    slow.session.outbox._max_messages = 2
    publish(alice, 1, 8)
    assert heard_bodies(fast) == [b"2", *numbers(4, 8)]
    assert [body for _, body in table.resumes(slow)] == numbers(1, 3, 2)
    table.passes(1)
    publish(alice, 9, 10)
    assert len(heard_bodies(slow)) == len(heard_bodies(fast)) == 1


def test_what_waits_for_full_outboxes_goes_out_when_one_is_read() -> None:
    table = Table(alice="app", ann="app")
    alice, ann = table.join("alice"), member(table, "ann")
    ann.reading = False
    ann.session.outbox._max_messages = 2
    publish(alice, 1, 5)
    assert [body for _, body in table.resumes(ann)] == numbers(1, 2)
    table.passes(0.1)
    assert heard_bodies(ann) == numbers(3, 4)
    assert table.router.publishing.next_deadline is not None
    table.passes(0.1)
    assert heard_bodies(ann) == numbers(5, 5)
    table.passes(0.1)
    assert table.router.publishing.next_deadline is None


def test_a_member_without_session_credit_is_passed_over_and_served_once_it_grants() -> None:
    table = Table(alice="app", ann="app", bea="app")
    alice = table.join("alice")
    ann = table.join("ann", wire.Hello(credit=wire.Grant(1, 1000)))
    ann.say(wire.Subscribe(1, 7, "app.>", q="w"))
    publish(alice, 1, 3)
    assert heard_bodies(ann) == numbers(1, 1)
    table.passes(0.1)
    assert table.router.publishing.next_deadline is None  # only a grant changes anything
    bea = member(table, "bea")
    publish(alice, 4, 4)
    ann.say_later(wire.Credit(m=5))
    assert heard_bodies(ann) == []  # nothing is left for it
    publish(alice, 5, 6)
    assert len(heard_bodies(ann)) == 1
    assert len(heard_bodies(bea)) >= 1


def test_what_a_member_has_got_is_not_dropped_for_other_deliveries() -> None:
    table = Table(alice="app", ann="app")
    alice, ann = table.join("alice"), member(table, "ann", window=3)
    ann.say(wire.Subscribe(2, 8, "topic.>", "drop_old"))
    ann.reading = False
    ann.session.outbox._max_messages = 8
    publish(alice, 1, 3)
    for _ in range(20):
        alice.say(wire.Publish("topic.x"))
    kept = [(c.sid, body) for c, body in table.resumes(ann) if isinstance(c, wire.Delivery)]
    assert [body for sid, body in kept if sid == 7] == numbers(1, 3)


def test_members_whose_outboxes_were_full_are_looked_at_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bus.routing.groups.LOOKS", 2)
    table = Table(alice="app", ann="app")
    alice, members = table.join("alice"), [member(table, "ann") for _ in range(5)]
    for peer in members:
        peer.reading = False
        peer.session.outbox._max_messages = 1
    publish(alice, 1, 10)
    served = [body for peer in members for _, body in table.resumes(peer)]
    assert served == numbers(1, 5)
    for expected in (numbers(6, 7), numbers(8, 9), numbers(10, 10)):
        table.passes(0.1)
        assert sorted((b for p in members for b in heard_bodies(p)), key=int) == expected
    table.passes(0.1)
    table.passes(0.1)
    assert table.router.publishing.next_deadline is None


def test_a_member_that_leaves_while_its_outbox_is_full_leaves_nothing_behind() -> None:
    table = Table(alice="app", ann="app")
    alice, ann = table.join("alice"), member(table, "ann")
    ann.reading = False
    ann.session.outbox._max_messages = 2
    publish(alice, 1, 5)
    table.router.lost(ann.session)
    assert table.router.publishing._groups._congested == {}
    table.passes(1)
    assert table.router.publishing.next_deadline is None


def test_a_message_that_waits_for_the_one_who_may_have_it_is_not_overtaken() -> None:
    table = Table(alice="app", ann="app", bea="app")
    denied = AccessEntry(key_of("ann"), "ann", ["app"], deny=Rules(subscribe=["app.secret"]))
    table.router.replace_access(table.router.sessions.access.with_entry(denied))
    alice, ann, bea = table.join("alice"), member(table, "ann"), member(table, "bea", window=1)
    alice.say(wire.Publish("app.secret"), b"s1")
    alice.say(wire.Publish("app.secret"), b"s2")
    publish(alice, 3, 3)
    assert heard_bodies(ann) == []
    assert heard_bodies(bea) == [b"s1"]
    bea.say_later(wire.Credit(sid=7, m=1))
    assert heard_bodies(bea) == [b"s2"]
    assert heard_bodies(ann) == [b"3"]


def test_what_a_member_has_got_is_not_given_to_another_when_it_leaves() -> None:
    _, alice, ann, bea = team(window=2)
    publish(alice, 1, 6)
    assert heard_bodies(ann) == numbers(1, 3, 2)
    ann.say(wire.Bye())
    assert heard_bodies(bea) == numbers(2, 4, 2)
    bea.say_later(wire.Credit(sid=7, m=2))
    assert heard_bodies(bea) == numbers(5, 6)


def test_with_its_last_member_a_group_is_gone_and_holds_nothing() -> None:
    table, alice, ann, bea = team(window=1)
    publish(alice, 1, 6)
    assert ann.say(wire.Unsubscribe(2, 7))[-1] == wire.Ok(2)
    bea.say(wire.Bye())
    groups = table.router.publishing._groups
    assert (groups.any, groups._budgets, groups._tree._root.empty) == (False, {}, True)
    assert member(table, "cyd").hears() == []


def test_what_waits_is_booked_on_a_member_that_is_there() -> None:
    table, alice, ann, bea = team(window=1)
    publish(alice, 1, 6)
    budgets = table.router.publishing._groups._budgets
    assert list(budgets) == [ann.key]
    ann.say(wire.Bye())
    assert list(budgets) == [bea.key]


def test_a_deny_keeps_a_members_share_from_it_and_gives_it_to_another() -> None:
    table = Table(alice="app", ann="app", bea="app")
    denied = AccessEntry(key_of("ann"), "ann", ["app"], deny=Rules(subscribe=["app.secret"]))
    table.router.replace_access(table.router.sessions.access.with_entry(denied))
    alice, ann, bea = table.join("alice"), member(table, "ann"), member(table, "bea")
    for _ in range(4):
        alice.say(wire.Publish("app.secret"), b"s")
    assert heard_bodies(ann) == []
    assert heard_bodies(bea) == [b"s"] * 4
    bea.say(wire.Bye())
    alice.say(wire.Publish("app.secret"), b"s")
    alice.say(wire.Publish("app.x"), b"x")
    assert heard_bodies(ann) == [b"x"]


def test_what_only_a_member_that_left_might_have_had_does_not_block_the_rest() -> None:
    table = Table(alice="app", ann="app", bea="app")
    denied = AccessEntry(key_of("ann"), "ann", ["app"], deny=Rules(subscribe=["app.secret"]))
    table.router.replace_access(table.router.sessions.access.with_entry(denied))
    alice, ann, bea = table.join("alice"), member(table, "ann", 1), member(table, "bea", 1)
    publish(alice, 1, 2)
    alice.say(wire.Publish("app.secret"), b"s")
    publish(alice, 3, 3)
    bea.say(wire.Bye())
    assert heard_bodies(ann) == numbers(1, 1)
    ann.say_later(wire.Credit(sid=7, m=1))
    assert ann.hears_bodies() == [
        (wire.Gap(7, 1, 3), None), (wire.Delivery(7, "app.x", alice.key), b"3"),
    ]  # fmt: skip


def test_a_member_whose_key_is_removed_gets_nothing_of_what_waits() -> None:
    table, alice, ann, bea = team(window=1)
    publish(alice, 1, 4)
    heard_bodies(ann)
    kept = [e for e in table.router.sessions.access.entries if e.key != ann.key]
    table.router.replace_access(AccessList(kept))
    assert ann.hears() == []
    bea.say_later(wire.Credit(sid=7, m=2))
    assert heard_bodies(bea) == [b"2", b"3"]


def test_credit_for_a_subscription_that_shares_nothing_is_refused() -> None:
    alice = Table(alice="app").join("alice")
    alice.say(wire.Subscribe(1, 7, "app.>"))
    assert refused(alice.say(wire.Credit(sid=7, m=1))) == (400, "bad_request", None)
    assert alice.in_session


def test_credit_for_a_subscription_that_has_ended_meanwhile_is_passed_over() -> None:
    assert Table(alice="app").join("alice").say(wire.Credit(sid=7, m=1)) == []


@pytest.mark.parametrize("window", [wire.MAX_WINDOW + 1, -1])
def test_a_window_outside_the_limits_is_no_frame(window: int) -> None:
    alice = Table(alice="app").join("alice")
    error, goodbye = alice.say(wire.Subscribe(1, 7, "app.>", q="w", window=window))
    assert isinstance(error, wire.Error)
    assert (error.err, type(goodbye)) == ("bad_frame", wire.Goodbye)


def test_what_waits_is_joined_only_as_far_as_one_delivery_may_hold() -> None:
    table = Table(alice="app", ann="app")
    alice, ann = table.join("alice"), member(table, "ann", window=4)
    publish(alice, 1, 4)
    assert heard_bodies(ann) == numbers(1, 4)
    half = bytes(LIMITS.payload // 2)
    for body in (half, half, b"5", b"6"):
        alice.say(wire.Publish("app.x"), body)
    ann.say_later(wire.Credit(sid=7, m=4))
    heard = ann.hears_bodies()
    assert [c.n for c, _ in heard if isinstance(c, wire.Delivery)] == [1, 3]
    assert all(len(body or b"") <= LIMITS.payload for _, body in heard)


def test_what_waits_from_two_publishers_keeps_their_names_and_subjects() -> None:
    table = Table(alice="app", bob="app", ann="app")
    alice, bob, ann = table.join("alice"), table.join("bob"), member(table, "ann", window=4)
    publish(alice, 1, 4)
    heard_bodies(ann)
    for peer, subject in ((alice, "app.x"), (bob, "app.x"), (bob, "app.y"), (bob, "app.y")):
        peer.say(wire.Publish(subject), b"m")
    ann.say_later(wire.Credit(sid=7, m=4))
    assert [command for command, _ in ann.hears_bodies()] == [
        wire.Delivery(7, "app.x", alice.key),
        wire.Delivery(7, "app.x", bob.key),
        wire.Delivery(7, "app.y", bob.key, 2),
    ]
