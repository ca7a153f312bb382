"""Durable topics in the broker's core: what is stored, answered and refused when it is published."""

from pathlib import Path

from bus import wire
from tests.support.dialogue import Peer, key_of, only, refused
from tests.support.durable import (
    DurableTable,
    records,
    restarted,
    store,
)


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
