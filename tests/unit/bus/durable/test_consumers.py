"""Durable topics in the broker's core: pulling, settling, coming again, and dead letters."""

from pathlib import Path

import pytest

from bus import wire
from tests.support.dialogue import BROKER_KEY, Peer, refused
from tests.support.durable import (
    DurableTable,
    consumer,
    pull,
    records,
    restarted,
    settle,
    store,
    topic,
)


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


def test_alarms_that_are_not_needed_any_more_do_not_pile_up(table: DurableTable, ada: Peer) -> None:
    consumer(ada, ack_wait=86_400.0)
    store(ada, b"x")
    pull(ada)
    for _ in range(200):
        ada.say(wire.Pull(50, "orders", "shop", 1, 100))
        table.passes(0.2)
        assert [type(c) for c in ada.hears()] == [wire.Ok]
    assert len(table.durable._desk.alarms._heap) < 10
