"""Durable topics in the broker's core: what is stored, read, pulled, settled, refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus import signals, wire
from bus.access import AccessList
from bus.signals import AccessEntry
from tests.support.dialogue import BROKER_KEY, Peer, key_of, only, refused
from tests.support.durable import DurableTable, consumer, pull, records, settle, store, topic


@pytest.fixture
def table(tmp_path: Path) -> Iterator[DurableTable]:
    made = DurableTable(
        tmp_path / "topics.db", ada="admin", ben="app", cyd="app", eve="observer", may="manager"
    )
    yield made
    made.crash()


@pytest.fixture
def ada(table: DurableTable) -> Peer:
    """An admin who has made the topic `orders`."""
    peer = table.join("ada")
    topic(peer)
    return peer


def restarted(table: DurableTable, path: Path) -> tuple[DurableTable, Peer]:
    """The broker after `kill -9`, and a peer that came back."""
    table.crash()
    again = DurableTable(path / "topics.db", ada="admin", ben="app")
    table.journal = again.journal  # for the fixture, which closes it
    return again, again.join("ben")


# Publishing.


def test_ok_comes_when_the_message_is_stored_and_tells_its_sequence(
    table: DurableTable, ada: Peer
) -> None:
    ben = table.join("ben")
    table.at_rest = True
    assert ben.say(wire.Publish("app.order.new", id=1), b"x") == []
    table.at_rest = False
    assert ben.hears() == [wire.Ok(1, seq=1)]
    assert ben.say(wire.Publish("app.order.new"), b"y") == []
    assert store(ben, b"z") == [3]


def test_what_no_topic_captures_is_answered_as_ever(table: DurableTable, ada: Peer) -> None:
    assert table.join("ben").say(wire.Publish("app.other", id=1), b"x") == [wire.Ok(1)]


def test_live_subscribers_get_it_at_once(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    ben.say(wire.Subscribe(1, 7, "app.order.>"))
    table.at_rest = True
    heard = table.join("cyd").say(wire.Publish("app.order.new", id=1), b"x")
    assert heard == []
    assert ben.hears() == [wire.Delivery(7, "app.order.new", key_of("cyd"))]


def test_a_batch_has_a_sequence_for_each_message(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    heard = ben.say(wire.Publish("app.order.new", 3, id=1), wire.join([b"a", b"b", b"c"]))
    assert heard == [wire.Ok(1, seq=3)]
    ben.say_later(wire.Read(2, "orders", n=9))
    assert records(ben, 2) == [(1, b"a", 0), (2, b"b", 0), (3, b"c", 0)]


def test_a_batch_that_is_none_is_refused_and_nobody_gets_it(table: DurableTable, ada: Peer) -> None:
    ben, cyd = table.join("ben"), table.join("cyd")
    cyd.say(wire.Subscribe(1, 7, "app.order.>"))
    assert refused(ben.say(wire.Publish("app.order.new", 3, id=1), b"x")) == (400, "bad_frame", 1)
    batch = wire.Publish("app.order.new", 2, id=1, mid="m")
    assert refused(ben.say(batch, wire.join([b"a", b"b"]))) == (400, "bad_request", 1)
    assert cyd.hears() == []
    assert store(ben, b"first") == [1]


def test_a_message_id_is_stored_once_and_answered_with_its_first_sequence(
    table: DurableTable, ada: Peer, tmp_path: Path
) -> None:
    ben, cyd = table.join("ben"), table.join("cyd")
    once = wire.Publish("app.order.new", id=1, mid="m")
    assert ben.say(once, b"x") == [wire.Ok(1, seq=1)]
    assert ben.say(once, b"x") == [wire.Ok(1, seq=1, dup=True)]
    assert cyd.say(once, b"x") == [wire.Ok(1, seq=2)]  # the id is another's
    table, ben = restarted(table, tmp_path)
    assert ben.say(once, b"x") == [wire.Ok(1, seq=1, dup=True)]


def test_the_same_id_twice_in_one_transaction_is_stored_once(
    table: DurableTable, ada: Peer
) -> None:
    ben = table.join("ben")
    table.at_rest = True
    for ref in (1, 2):
        ben.say_later(wire.Publish("app.order.new", id=ref, mid="m"), b"x")
    table.at_rest = False
    assert ben.hears() == [wire.Ok(1, seq=1), wire.Ok(2, seq=1, dup=True)]


def test_a_message_id_is_forgotten_when_its_time_is_over(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    clock = 1.7e9
    table.router.sessions.clock = lambda: clock
    once = wire.Publish("app.order.new", id=1, mid="m")
    ben.say(once, b"x")
    clock += 119
    assert only(ben.say(once, b"x"), wire.Ok).dup
    clock += 2
    assert ben.say(once, b"x") == [wire.Ok(1, seq=2)]


def test_when_the_disk_does_not_keep_up_publishers_are_told_and_nobody_gets_it(
    table: DurableTable, ada: Peer
) -> None:
    ben = table.join("ben")
    ben.say(wire.Subscribe(1, 7, "app.order.>"))
    table.journal.full = True
    heard = ben.say(wire.Publish("app.order.new", id=1), b"x")
    assert refused(heard) == (429, "limit", 1)


# Reading.


def test_reading_from_a_sequence_a_time_the_last_and_the_oldest(
    table: DurableTable, ada: Peer
) -> None:
    ben = table.join("ben")
    clock = 1.7e9
    table.router.sessions.clock = lambda: clock
    for body in (b"1", b"2", b"3"):
        store(ben, body)
        clock += 10

    def read(**place: int) -> tuple[list[int], int | None, int | None]:
        *found, ok = ben.say(wire.Read(2, "orders", n=2, **place))
        assert isinstance(ok, wire.Ok)
        return [record.seq for record in found], ok.seq, ok.left  # type: ignore[attr-defined]

    assert read() == ([1, 2], 3, 1)
    assert read(seq=2) == ([2, 3], 4, 0)
    assert read(seq=9) == ([], 9, 0)
    assert read(last=1) == ([3], 4, 0)
    assert read(last=2**63 - 1) == ([1, 2], 3, 1)
    assert read(time=1_700_000_010_000) == ([2, 3], 4, 0)
    assert read(time=1_700_000_000_001) == ([2, 3], 4, 0)
    assert read(time=2**63 - 1) == ([], 4, 0)
    assert read(seq=2**63 - 1) == ([], 2**63 - 1, 0)
    assert refused(ben.say(wire.Read(2, "orders", seq=1, last=1))) == (400, "bad_request", 2)


def test_a_record_tells_who_published_it_where_and_when(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    store(ben, b"x", s="app.order.paid")
    record, _ = table.join("cyd").say(wire.Read(2, "orders"))
    assert record == wire.Record(2, 1, "app.order.paid", ben.key, 1_700_000_000_000)


def test_a_read_that_waits_gets_what_comes_or_ends_when_its_time_is_over(
    table: DurableTable, ada: Peer
) -> None:
    ben, cyd = table.join("ben"), table.join("cyd")
    assert ben.say(wire.Read(2, "orders", wait=5000)) == []
    assert ben.say(wire.Read(3, "orders", seq=2, wait=5000)) == []
    store(cyd, b"x")
    assert records(ben, 2) == [(1, b"x", 0)]
    table.passes(6)
    assert ben.hears() == [wire.Ok(3, seq=2, left=0)]


# Consumers.


def test_each_record_goes_to_one_of_those_who_pull_and_not_again_after_its_ack(
    table: DurableTable, ada: Peer
) -> None:
    ben, cyd = table.join("ben"), table.join("cyd")
    consumer(ben)
    store(ada, b"1", b"2", b"3")
    assert pull(ben, 2) == [(1, b"1", 1), (2, b"2", 1)]
    assert pull(cyd) == [(3, b"3", 1)]
    settle(cyd, 1, 3)  # whoever settles
    settle(cyd, 1, 3)  # again: nothing
    table.passes(31)
    ben, cyd = table.join("ben"), table.join("cyd")
    assert pull(ben) == [(2, b"2", 2)]


def test_pulls_that_wait_are_served_in_turn(table: DurableTable, ada: Peer) -> None:
    ben, cyd = table.join("ben"), table.join("cyd")
    consumer(ben)
    assert ben.say(wire.Pull(50, "orders", "shop", 1, 20_000)) == []
    assert cyd.say(wire.Pull(50, "orders", "shop", 5, 20_000)) == []
    store(ada, b"1", b"2")
    assert records(ben, 50) == [(1, b"1", 1)]
    assert records(cyd, 50) == [(2, b"2", 1)]


def test_a_pull_that_waits_ends_when_its_time_is_over(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    consumer(ben)
    assert ben.say(wire.Pull(50, "orders", "shop", 1, 5000)) == []
    table.passes(4)
    assert ben.hears() == []
    table.passes(1)
    assert ben.hears() == [wire.Ok(50, seq=1, left=0)]


def test_a_nak_brings_it_back_at_once_or_after_its_delay(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    consumer(ben)
    store(ada, b"1", b"2")
    pull(ben)
    settle(ben, 2, act="nak", delay=5000)
    settle(ben, 1, act="nak")
    assert pull(ben) == [(1, b"1", 2)]
    table.passes(6)
    assert pull(ben) == [(2, b"2", 2)]


def test_work_in_progress_is_not_delivered_again(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    consumer(ben, ack_wait=10.0)
    store(ada, b"1")
    pull(ben)
    table.passes(9)
    settle(ben, 1, act="wip")
    table.passes(9)
    assert pull(ben) == []
    table.passes(1)
    assert pull(ben) == [(1, b"1", 2)]


def test_what_is_delivered_too_often_is_a_dead_letter_of_the_brokers(
    table: DurableTable, ada: Peer
) -> None:
    ben = table.join("ben")
    topic(ada, "graves", "dead.>")
    ada.say(wire.Subscribe(1, 7, "dead.orders"))
    consumer(ben, max_deliver=2)
    store(ada, b"poison", b"good")
    for count in (1, 2):
        assert pull(ben, 1) == [(1, b"poison", count)]
        settle(ben, 1, act="nak")
    assert ada.hears_bodies() == [(wire.Delivery(7, "dead.orders", BROKER_KEY), b"poison")]
    assert pull(ben) == [(2, b"good", 1)]
    ada.say_later(wire.Read(2, "graves", n=9))
    assert records(ada, 2) == [(1, b"poison", 0)]
    [info] = ada.asks("$SYS.consumers", {"topic": "orders"})["consumers"]
    assert (info["dead"], info["inflight"], info["redelivered"]) == (1, 1, 1)


def test_a_dead_letter_waits_until_its_topic_takes_it(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    topic(ada, "graves", "dead.>", max_messages=1, full="reject")
    consumer(ben)
    store(ada, b"1", b"2")
    pull(ben)
    settle(ben, 1, 2, act="term")
    [info] = ada.asks("$SYS.consumers", {"topic": "orders"})["consumers"]
    assert (info["dead"], info["inflight"]) == (1, 1)
    topic(ada, "graves", "dead.>", max_messages=9, full="reject")
    table.passes(2)
    [info] = ada.asks("$SYS.consumers", {"topic": "orders"})["consumers"]
    assert (info["dead"], info["inflight"]) == (2, 0)


def test_a_terminated_record_is_a_dead_letter_even_if_the_broker_dies_before(
    table: DurableTable, ada: Peer, tmp_path: Path
) -> None:
    ben = table.join("ben")
    topic(ada, "graves", "dead.>", max_messages=1, full="reject")
    consumer(ben)
    store(ada, b"1", b"2")
    pull(ben)
    settle(ben, 1, act="term")
    settle(ben, 2, act="term")  # for which there is no room
    table, ben = restarted(table, tmp_path)
    ada = table.join("ada")
    ada.say(wire.Subscribe(1, 7, "dead.orders"))
    topic(ada, "graves", "dead.>", max_messages=9, full="reject")
    table.passes(2)
    assert ada.hears_bodies() == [(wire.Delivery(7, "dead.orders", BROKER_KEY), b"2")]
    assert pull(ben) == []


def test_no_more_than_the_window_is_under_way(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    consumer(ben, max_inflight=2)
    store(ada, b"1", b"2", b"3")
    assert [seq for seq, _, _ in pull(ben)] == [1, 2]
    assert ben.say(wire.Pull(50, "orders", "shop", 1, 5000)) == []
    ben.say_later(wire.Settle("orders", "shop", [1]))
    assert records(ben, 50) == [(3, b"3", 1)]


@pytest.mark.parametrize(
    ("start", "at", "expected"),
    [
        ("all", 0, [1, 2, 3]), ("new", 0, []), ("last", 0, [3]), ("seq", 2, [2, 3]), ("seq", 99, []),
        ("time", 1_700_000_010_000, [2, 3]),
    ],
)  # fmt: skip
def test_a_consumer_begins_where_it_is_told(
    table: DurableTable, ada: Peer, start: str, at: int, expected: list[int]
) -> None:
    clock = 1.7e9
    table.router.sessions.clock = lambda: clock
    for body in (b"1", b"2", b"3"):
        store(ada, body)
        clock += 10
    consumer(ada, start=start, at=at)
    assert [seq for seq, _, _ in pull(ada)] == expected
    store(ada, b"4")
    assert [seq for seq, _, _ in pull(ada)] == [4]


def test_a_filter_lets_through_only_its_subjects_however_few(
    table: DurableTable, ada: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.topics.reading.SCAN", 3)
    consumer(ada, filter="app.order.paid")
    for number in range(20):
        store(ada, b"x", s="app.order.paid" if number in {0, 13} else "app.order.new")
    assert [seq for seq, _, _ in pull(ada, 1)] == [1]
    assert [seq for seq, _, _ in pull(ada, 1)] == [14]
    assert pull(ada, 1) == []


def test_one_answer_is_bounded_in_bytes_but_never_empty(
    table: DurableTable, ada: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.routing.pulling.PAGE_BYTES", 10)
    monkeypatch.setattr("bus.routing.looking.PAGE_BYTES", 10)
    consumer(ada)
    store(ada, b"x" * 30, b"y" * 6, b"z" * 6, b"w")
    assert [[seq for seq, _, _ in pull(ada)] for _ in range(3)] == [[1], [2, 3], [4]]
    ada.say_later(wire.Read(2, "orders", n=9))
    assert len(records(ada, 2)) == 1


def test_a_consumer_goes_on_where_it_was_and_counts_on_after_a_restart(
    table: DurableTable, ada: Peer, tmp_path: Path
) -> None:
    ben = table.join("ben")
    consumer(ben)
    store(ada, b"1", b"2", b"3")
    pull(ben, 2)
    settle(ben, 1)
    table, ben = restarted(table, tmp_path)
    assert pull(ben) == [(3, b"3", 1)]
    table.passes(31)
    ben = table.join("ben")
    assert pull(ben) == [(2, b"2", 2), (3, b"3", 2)]


def test_a_session_that_leaves_waits_for_nothing(table: DurableTable, ada: Peer) -> None:
    ben, cyd = table.join("ben"), table.join("cyd")
    consumer(ben)
    ben.say(wire.Pull(50, "orders", "shop", 1, 20_000))
    ben.say(wire.Read(51, "orders", seq=1, wait=20_000))
    ben.say(wire.Bye())
    store(ada, b"1")
    assert pull(cyd) == [(1, b"1", 1)]


def test_a_session_may_wait_for_so_many_things_at_once(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    for ref in range(256):
        assert ben.say(wire.Read(ref, "orders", wait=20_000)) == []
    assert refused(ben.say(wire.Read(256, "orders", wait=20_000))) == (429, "limit", 256)
    store(ada, b"x")
    assert len(ben.hears()) == 2 * 256
    assert ben.say(wire.Read(1, "orders", seq=2, wait=20_000)) == []


# Retention.


def test_the_oldest_give_way_by_number_bytes_and_age(table: DurableTable, ada: Peer) -> None:
    clock = 1.7e9
    table.router.sessions.clock = lambda: clock

    def kept() -> list[int]:
        ada.say_later(wire.Read(2, "orders", n=99))
        return [seq for seq, _, _ in records(ada, 2)]

    topic(ada, max_messages=3)
    store(ada, *[b"%d" % n for n in range(5)])
    assert kept() == [3, 4, 5]
    size = 64 + len("app.order.new") + 1
    topic(ada, max_bytes=2 * size)
    assert kept() == [4, 5]
    topic(ada, max_age=60.0)
    clock += 59
    store(ada, b"6")
    clock += 2
    table.passes(2)
    assert kept() == [6]
    clock += 100
    table.passes(2)
    assert kept() == []
    [info] = ada.asks("$SYS.topics")["topics"]
    assert (info["first"], info["last"], info["messages"], info["bytes"]) == (7, 6, 0, 0)
    assert store(ada, b"7") == [7]


def test_what_retention_took_is_not_delivered_and_the_rest_is(
    table: DurableTable, ada: Peer
) -> None:
    topic(ada, max_messages=2)
    consumer(ada)
    store(ada, b"1", b"2")
    pull(ada)
    store(ada, b"3", b"4")
    settle(ada, 1, 2, act="nak")
    assert pull(ada) == [(3, b"3", 1), (4, b"4", 1)]
    [info] = ada.asks("$SYS.consumers", {"topic": "orders"})["consumers"]
    assert (info["inflight"], info["floor"]) == (2, 2)


def test_a_topic_that_rejects_answers_507_until_there_is_room(
    table: DurableTable, ada: Peer
) -> None:
    clock = 1.7e9
    table.router.sessions.clock = lambda: clock
    topic(ada, max_messages=2, max_age=60.0, full="reject")
    store(ada, b"1", b"2")
    full = ada.say(wire.Publish("app.order.new", id=1), b"3")
    assert refused(full) == (507, "store_full", 1)
    clock += 61
    assert store(ada, b"3") == [3]


def test_what_alone_is_more_than_a_topic_holds_is_refused_and_nothing_drops(
    table: DurableTable, ada: Peer
) -> None:
    topic(ada, max_bytes=1000)
    store(ada, b"1")
    large = ada.say(wire.Publish("app.order.new", id=1), b"x" * 1000)
    assert refused(large) == (507, "store_full", 1)
    [info] = ada.asks("$SYS.topics")["topics"]
    assert info["messages"] == 1


# Who may, and what may be.


def test_reading_needs_the_right_to_subscribe_to_all_of_it(table: DurableTable, ada: Peer) -> None:
    topic(ada, "mesh", "mesh.>")
    consumer(ada, "events", "mesh", filter="mesh.event.>")
    ben = table.join("ben")
    assert refused(ben.say(wire.Read(1, "mesh"))) == (403, "denied", 1)
    may = table.join("may")  # publishes to mesh.>, but subscribes only to its events
    assert pull(may, name="events", of="mesh") == []
    assert consumer(may, "own", "mesh").err == "denied"
    assert "config" in consumer(may, "own", "mesh", filter="mesh.event.>")
    assert [t["config"]["topic"] for t in ben.asks("$SYS.topics")["topics"]] == ["orders"]
    store(ada, b"x")
    consumer(ada)
    listed = may.asks("$SYS.consumers", None)["consumers"]
    assert [c["config"]["consumer"] for c in listed] == ["shop", "events", "own"]
    assert ben.asks("$SYS.consumers", {"topic": "none"}).err == "no_topic"


def test_apps_make_no_topics(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    assert topic(ben, "mine", "app.mine").err == "denied"
    assert ben.asks("$SYS.topic.remove", {"topic": "orders"}).err == "denied"


def test_dead_letters_go_only_where_who_asked_for_it_may_publish(
    table: DurableTable, ada: Peer
) -> None:
    ben = table.join("ben")
    assert consumer(ben, dead="mesh.route").err == "denied"
    assert consumer(ada, dead="$SYS.event.closed").err == "bad_request"
    assert consumer(ada, dead="app.order.dead").err == "bad_request"  # they would come back
    assert "config" in consumer(ben, dead="app.graves")
    assert topic(ada, "orders", "app.>").err == "conflict"


def test_who_loses_the_right_no_longer_waits(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    consumer(ben)
    ben.say(wire.Pull(50, "orders", "shop", 1, 20_000))
    ben.say(wire.Read(51, "orders", wait=20_000))
    entries = [
        AccessEntry(key_of("ada"), "ada", ["admin"]),
        AccessEntry(key_of("ben"), "ben", ["manager"], deny=deny("app.order.new")),
    ]
    table.router.replace_access(AccessList(entries))
    heard = ben.hears()
    assert sorted(e.ref or 0 for e in heard if isinstance(e, wire.Error)) == [50, 51]
    assert refused(ben.say(wire.Read(1, "orders"))) == (403, "denied", 1)


def deny(pattern: str) -> Any:
    return signals.Rules(subscribe=[pattern])


def test_no_two_topics_share_a_subject(table: DurableTable, ada: Peer) -> None:
    assert topic(ada, "more", "app.*.new").err == "conflict"
    assert topic(ada, "more", "app.a", "app.>").err == "bad_request"
    assert "config" in topic(ada, "orders", "app.order.>", "app.bill.>")
    assert store(ada, b"x", s="app.bill.new") == [1]
    assert "config" in topic(ada, "orders", "app.bill.>")
    assert ada.say(wire.Publish("app.order.new", id=1), b"x") == [wire.Ok(1)]


def test_two_who_make_overlapping_topics_at_once_do_not_both_succeed(
    table: DurableTable, ada: Peer
) -> None:
    table.at_rest = True
    one = topic_request("one", "app.x.>")
    ada.say_later(*one)
    ada.say_later(*topic_request("two", "app.x.y"))
    table.at_rest = False
    kinds = sorted(type(c).__name__ for c in ada.hears())
    assert kinds == ["Error", "ReplyDelivery"]


def topic_request(name: str, *patterns: str) -> tuple[wire.Command, bytes]:
    body = signals.pack({"topic": name, "subjects": list(patterns)})
    return wire.Request(1, "$SYS.topic.put", 1000), body


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic": ""}, {"topic": "a b"}, {"topic": "$x"}, {"subjects": []}, {"subjects": ["a..b"]},
        {"subjects": ["a", "a"]}, {"full": "explode"}, {"max_age": -1.0}, {"max_bytes": -1},
        {"max_age": float("nan")}, {"dedup": 1e9}, {"max_messages": 1 << 50}, {"topic": "x" * 65},
    ],
)  # fmt: skip
def test_a_topic_that_cannot_be_is_refused(
    table: DurableTable, ada: Peer, wrong: dict[str, Any]
) -> None:
    body = {"topic": "fine", "subjects": ["app.fine"], **wrong}
    assert ada.asks("$SYS.topic.put", body).num == 400
    assert len(table.durable.infos()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"consumer": ""}, {"start": "never"}, {"at": -1}, {"filter": "a..b"}, {"ack_wait": 0.0},
        {"ack_wait": float("inf")}, {"max_deliver": -1}, {"max_inflight": 0}, {"max_inflight": 5000},
        {"dead": "a.*"},
    ],
)  # fmt: skip
def test_a_consumer_that_cannot_be_is_refused(
    table: DurableTable, ada: Peer, wrong: dict[str, Any]
) -> None:
    assert ada.asks("$SYS.consumer.put", {"topic": "orders", "consumer": "c", **wrong}).num == 400


def test_a_consumer_is_changed_but_not_moved(table: DurableTable, ada: Peer) -> None:
    consumer(ada, max_deliver=1)
    store(ada, b"1")
    pull(ada)
    assert consumer(ada, max_deliver=9)["config"]["max_deliver"] == 9
    settle(ada, 1, act="nak")
    assert pull(ada) == [(1, b"1", 2)]
    assert consumer(ada, start="new").err == "conflict"


def test_what_is_removed_is_gone_and_who_waits_is_told(
    table: DurableTable, ada: Peer, tmp_path: Path
) -> None:
    ben = table.join("ben")
    consumer(ben)
    store(ada, b"1")
    pull(ben)
    ben.say(wire.Pull(50, "orders", "shop", 1, 20_000))
    ada.asks("$SYS.consumer.remove", {"topic": "orders", "consumer": "shop"})
    assert refused(ben.hears()) == (404, "no_consumer", 50)
    assert refused(ben.say(wire.Pull(5, "orders", "shop"))) == (404, "no_consumer", 5)
    ben.say(wire.Read(51, "orders", seq=2, wait=20_000))
    ada.asks("$SYS.topic.remove", {"topic": "orders"})
    assert refused(ben.hears()) == (404, "no_topic", 51)
    assert refused(ben.say(wire.Read(5, "orders"))) == (404, "no_topic", 5)
    assert ada.asks("$SYS.topic.remove", {"topic": "orders"}).err == "no_topic"
    topic(ada)
    consumer(ben)
    assert store(ada, b"anew") == [1]
    assert pull(ben) == [(1, b"anew", 1)]


def test_an_unknown_act_is_refused(table: DurableTable, ada: Peer) -> None:
    consumer(ada)
    heard = ada.say(wire.Settle("orders", "shop", [1], "eat", id=7))
    assert refused(heard) == (400, "bad_request", 7)


def test_a_settlement_that_the_disk_does_not_take_is_told_and_made_up_for(
    table: DurableTable, ada: Peer, tmp_path: Path
) -> None:
    consumer(ada)
    store(ada, b"1")
    pull(ada)
    table.journal.full = True
    heard = ada.say(wire.Settle("orders", "shop", [1], id=7))
    assert refused(heard) == (429, "limit", 7)
    table.journal.full = False
    table.passes(2)
    table, _ = restarted(table, tmp_path)
    table.passes(31)
    assert pull(table.join("ben")) == []


def test_settlements_that_come_while_one_is_written_are_written_together(
    table: DurableTable, ada: Peer
) -> None:
    consumer(ada)
    store(ada, *[b"x"] * 9)
    pull(ada)
    table.at_rest = True
    for seq in range(1, 10):
        assert ada.say(wire.Settle("orders", "shop", [seq], id=seq)) == []
    assert len(table.journal.waiting) == 1
    table.journal.run(table.now)
    assert [ok.ref for ok in ada.hears() if isinstance(ok, wire.Ok)] == [1]
    assert len(table.journal.waiting) == 1
    table.journal.run(table.now)
    assert [ok.ref for ok in ada.hears() if isinstance(ok, wire.Ok)] == list(range(2, 10))
    assert not table.journal.waiting


def test_one_key_cannot_take_all_the_room_before_the_disk(table: DurableTable, ada: Peer) -> None:
    ben, cyd = table.join("ben"), table.join("cyd")
    table.at_rest = True
    for _ in range(16):
        assert ben.say(wire.Publish("app.order.new"), bytes(1 << 20)) == []
    full = ben.say(wire.Publish("app.order.new", id=1), bytes(1 << 20))
    assert refused(full) == (429, "limit", 1)
    assert cyd.say(wire.Publish("app.order.new", id=1), bytes(1 << 20)) == []
    table.at_rest = False
    assert cyd.hears() == [wire.Ok(1, seq=17)]
    assert store(ben, b"x") == [18]


def test_answers_that_wait_to_be_read_are_few_at_a_time(table: DurableTable, ada: Peer) -> None:
    ben = table.join("ben")
    store(ada, b"x")
    table.at_rest = True
    for ref in range(100):
        ben.say_later(wire.Read(ref, "orders"))
    assert len(table.journal.waiting) == 16
    table.at_rest = False
    heard = [c for c in ben.hears() if isinstance(c, wire.Ok)]
    assert [ok.ref for ok in heard] == list(range(100))


def test_a_topic_that_is_removed_and_made_in_one_transaction_is_there(
    table: DurableTable, ada: Peer
) -> None:
    consumer(ada)
    store(ada, b"old")
    pull(ada)
    table.at_rest = True
    ada.say_later(wire.Request(1, "$SYS.topic.remove", 1000), signals.pack({"topic": "orders"}))
    ada.say_later(*topic_request("orders", "app.order.>"))
    table.at_rest = False
    assert [type(c) for c in ada.hears()] == [wire.ReplyDelivery] * 2
    assert refused(ada.say(wire.Pull(5, "orders", "shop"))) == (404, "no_consumer", 5)
    consumer(ada)
    assert store(ada, b"new") == [1]
    assert pull(ada) == [(1, b"new", 1)]


def test_alarms_that_are_not_needed_any_more_do_not_pile_up(table: DurableTable, ada: Peer) -> None:
    consumer(ada, ack_wait=86_400.0)
    store(ada, b"x")
    pull(ada)
    for _ in range(200):
        ada.say(wire.Pull(50, "orders", "shop", 1, 100))
        table.passes(0.2)
        assert [type(c) for c in ada.hears()] == [wire.Ok]
    assert len(table.durable._desk.alarms._heap) < 10
