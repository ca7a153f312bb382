"""Durable topics in the broker's core: topics and consumers are made, changed and removed."""

from pathlib import Path
from typing import Any

import pytest

from bus import signals, wire
from tests.support.dialogue import Peer, refused
from tests.support.durable import DurableTable, consumer, pull, settle, store, topic


def topic_request(name: str, *patterns: str) -> tuple[wire.Command, bytes]:
    """What is said to make a topic."""
    body = signals.pack({"topic": name, "subjects": list(patterns)})
    return wire.Request(1, "$SYS.topic.put", 1000), body


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
