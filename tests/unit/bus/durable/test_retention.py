"""Durable topics in the broker's core: what gives way when there is too much, and what is refused then."""

from bus import wire
from tests.support.dialogue import Peer, refused
from tests.support.durable import DurableTable, consumer, pull, records, settle, store, topic


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
