"""Durable topics (section 10): publish, read, pull, settle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bus.conformance.checks import Checks
from bus.conformance.results import Skipped, Unexpected
from bus.conformance.table import Heard, Peer, Table

STORING = Checks()


@contextmanager
def _topic(table: Table, **limits: object) -> Iterator[tuple[Peer, str]]:
    """A session, and the name of a topic that stores what is published to the table's place."""
    peer, name = table.joins("durable"), f"conformance-{table.place[-8:]}"
    config: dict[str, Any] = {"topic": name, "subjects": [table.place], "dedup": 60.0, **limits}
    peer.asks_broker("$SYS.topic.put", config)
    try:
        yield peer, name
    finally:
        sent = table.sent
        with suppress(Unexpected, Skipped):
            table.joins().asks_broker("$SYS.topic.remove", {"topic": name})
        table.sent = sent


def _stored(peer: Peer, table: Table, body: bytes, **fields: object) -> Heard:
    peer.says("PUBLISH", body, id=5, s=table.place, **fields)
    return peer.hears("OK", ref=5)


def _consumer(peer: Peer, topic: str, **config: object) -> None:
    peer.asks_broker("$SYS.consumer.put", {"topic": topic, "consumer": "c", **config})


def _pulled(peer: Peer, topic: str, n: int, *expected: tuple[int, bytes, int]) -> None:
    """Pull `n`; the records are these (sequence, body, deliveries)."""
    peer.says("PULL", id=7, topic=topic, consumer="c", n=n)
    for seq, body, deliveries in expected:
        peer.hears("RECORD", body, ref=7, seq=seq, dlv=deliveries)
    peer.hears("OK", ref=7)


@STORING.check("OK to a stored message tells its sequence; the same message id is stored once")
def _(table: Table) -> None:
    with _topic(table) as (peer, _):
        first = _stored(peer, table, b"one", mid="m-1").fields
        again = _stored(peer, table, b"one", mid="m-1").fields
        second = _stored(peer, table, b"two", mid="m-2").fields
        if (first["seq"], again["seq"], again.get("dup"), second["seq"]) != (1, 1, True, 2):
            raise Unexpected("seq 1, again 1 with dup, then 2", repr((first, again, second)))


@STORING.check("READ gives records from a sequence, from a time and the last ones")
def _(table: Table) -> None:
    with _topic(table) as (peer, name):
        for body in (b"one", b"two", b"three"):
            _stored(peer, table, body)
        peer.says("READ", id=7, topic=name, seq=2, n=10)
        for seq, body in ((2, b"two"), (3, b"three")):
            peer.hears("RECORD", body, ref=7, seq=seq, s=table.place, from_=peer.key)
        peer.hears("OK", ref=7, seq=4, left=0)
        peer.says("READ", id=8, topic=name, last=1)
        peer.hears("RECORD", b"three", ref=8, seq=3)
        peer.hears("OK", ref=8, seq=4)
        peer.says("READ", id=9, topic=name, time=0, n=1)
        peer.hears("RECORD", b"one", ref=9, seq=1)
        peer.hears("OK", ref=9, seq=2, left=2)


@STORING.check("a consumer gets a record until it is settled, and not after its ack")
def _(table: Table) -> None:
    with _topic(table) as (peer, name):
        _consumer(peer, name)
        for body in (b"one", b"two"):
            _stored(peer, table, body)
        _pulled(peer, name, 10, (1, b"one", 1), (2, b"two", 1))
        peer.says("SETTLE", id=8, topic=name, consumer="c", seqs=[1])
        peer.hears("OK", ref=8)
        peer.says("SETTLE", id=9, topic=name, consumer="c", seqs=[2], act="nak")
        peer.hears("OK", ref=9)
        _pulled(peer, name, 10, (2, b"two", 2))
        peer.says("SETTLE", id=8, topic=name, consumer="c", seqs=[1, 2, 99])
        peer.hears("OK", ref=8)
        _pulled(peer, name, 10)


@STORING.check("two sessions that pull for one consumer get different records")
def _(table: Table) -> None:
    with _topic(table) as (peer, name):
        _consumer(peer, name)
        for body in (b"one", b"two"):
            _stored(peer, table, body)
        _pulled(peer, name, 1, (1, b"one", 1))
        _pulled(table.joins("durable"), name, 5, (2, b"two", 1))


@STORING.check("PULL with wait gets what is published meanwhile")
def _(table: Table) -> None:
    with _topic(table) as (peer, name):
        _consumer(peer, name)
        peer.says("PULL", id=7, topic=name, consumer="c", n=1, wait=20_000)
        peer.hears_no_more()
        _stored(table.joins(), table, b"fresh")
        peer.hears("RECORD", b"fresh", ref=7, seq=1)
        peer.hears("OK", ref=7)


@STORING.check("a record that is given up goes to the dead letters")
def _(table: Table) -> None:
    with _topic(table) as (peer, name):
        _consumer(peer, name, dead=f"{table.place}.dead")
        watcher = table.other_joins()
        watcher.says("SUBSCRIBE", id=1, sid=1, s=f"{table.place}.dead")
        watcher.hears("OK", ref=1)
        _stored(peer, table, b"poison")
        _pulled(peer, name, 1, (1, b"poison", 1))
        peer.says("SETTLE", id=8, topic=name, consumer="c", seqs=[1], act="term")
        peer.hears("OK", ref=8)
        watcher.hears("DELIVERY", sid=1, from_=table.address.key)
        _pulled(peer, name, 1)


@STORING.check("a topic that is full and rejects answers 507")
def _(table: Table) -> None:
    with _topic(table, max_messages=1, full="reject") as (peer, _):
        _stored(peer, table, b"one")
        peer.says("PUBLISH", b"two", id=5, s=table.place)
        peer.hears("ERROR", num=507, err="store_full", ref=5)


@STORING.check("a topic or a consumer that is not there is refused by name")
def _(table: Table) -> None:
    with _topic(table) as (peer, name):
        peer.says("READ", id=7, topic="no-such-topic")
        peer.hears("ERROR", num=404, err="no_topic", ref=7)
        peer.says("PULL", id=8, topic=name, consumer="nobody")
        peer.hears("ERROR", num=404, err="no_consumer", ref=8)
        peer.says("SETTLE", id=9, topic=name, consumer="nobody", seqs=[1])
        peer.hears("ERROR", num=404, err="no_consumer", ref=9)
