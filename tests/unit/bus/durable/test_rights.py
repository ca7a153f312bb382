"""Durable topics in the broker's core: who may read, make and remove, and where dead letters may go."""

from bus import wire
from bus.access import AccessList
from bus.signals import AccessEntry, Rules
from tests.support.dialogue import Peer, key_of, refused
from tests.support.durable import DurableTable, consumer, pull, store, topic


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
    assert [c["config"]["consumer"] for c in listed] == ["events", "own", "shop"]
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
        AccessEntry(key_of("ben"), "ben", ["manager"], deny=Rules(subscribe=["app.order.new"])),
    ]
    table.router.replace_access(AccessList(entries))
    heard = ben.hears()
    assert sorted(e.ref or 0 for e in heard if isinstance(e, wire.Error)) == [50, 51]
    assert refused(ben.say(wire.Read(1, "orders"))) == (403, "denied", 1)


def test_whoever_may_read_a_topic_may_settle_and_remove_its_consumers(
    table: DurableTable, ada: Peer
) -> None:
    ben = table.join("ben")
    consumer(ada, ack_wait=2)
    store(ada, b"x")
    [(seq, *_)] = pull(ada)
    ben.say(wire.Settle("orders", "shop", [seq], id=9))
    table.passes(5)
    assert pull(ada) == []
    assert ben.asks("$SYS.consumer.remove", {"topic": "orders", "consumer": "shop"}) == {}
    assert ada.asks("$SYS.consumers", None)["consumers"] == []
