"""Durable topics with the real broker: what is answered OK is there, whatever becomes of the broker."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.support.broker import Broker, run_cli, running_broker
from tests.support.durable_client import PULL, READ, RECORD, Client
from tests.support.raw import ERROR, OK, PUBLISH


def set_up(broker: Broker) -> Client:
    """A client of a broker that has a topic and a consumer."""
    client = Client(broker.address, broker.keys["ada"])
    client.asks("$SYS.topic.put", {"topic": "orders", "subjects": ["app.order.>"]})
    client.asks("$SYS.consumer.put", {"topic": "orders", "consumer": "shop", "ack_wait": 0.5})
    return client


def test_no_database_is_made_before_the_first_topic() -> None:
    with running_broker(ada="admin") as broker:
        with Client(broker.address, broker.keys["ada"]) as client:
            assert client.asks("$SYS.topics", None) == {"topics": []}
            client.send(READ, {"id": 1, "topic": "orders"})
            assert client.hear_only(ERROR)["err"] == "no_topic"
        assert list(broker.folder.glob("topics*")) == []
        with set_up(broker):
            assert (broker.folder / "topics.db").stat().st_mode & 0o777 == 0o600


def test_what_was_answered_survives_kill_9_and_what_was_acked_does_not_come_again() -> None:
    with running_broker(ada="admin") as broker:
        with set_up(broker) as client:
            assert [client.stores(b"%d" % n) for n in range(1, 6)] == [1, 2, 3, 4, 5]
            assert client.pulls(3) == [(1, b"1"), (2, b"2"), (3, b"3")]
            client.settles(1, 3)
        broker.kill()
        broker.start()
        with Client(broker.address, broker.keys["ada"]) as client:
            assert client.reads_all() == [(n, b"%d" % n) for n in range(1, 6)]
            assert client.pulls() == [(4, b"4"), (5, b"5")]
            assert client.pulls(wait=5000) == [(2, b"2")]  # when its time is over
            assert client.stores(b"6") == 6


def test_deliveries_are_counted_over_a_restart() -> None:
    with running_broker(ada="admin") as broker:
        with set_up(broker) as client:
            client.stores(b"1")
            client.pulls()
        assert broker.stop() == 0
        broker.start()
        with Client(broker.address, broker.keys["ada"]) as client:
            client.send(PULL, {"id": 2, "topic": "orders", "consumer": "shop", "wait": 5000})
            assert client.hear_only(RECORD)["dlv"] == 2


def test_64_in_flight_are_answered_in_order_and_each_is_stored_once() -> None:
    with running_broker(ada="admin") as broker, set_up(broker) as client:
        for number in range(64):
            client.send(PUBLISH, {"s": "app.order.new", "id": number}, b"%d" % number)
        for number in range(64, 2000):
            assert client.hear_only(OK) == {"ref": number - 64, "seq": number - 63}
            client.send(PUBLISH, {"s": "app.order.new", "id": number}, b"%d" % number)
        for _ in range(64):
            client.hear_only(OK)
        assert client.reads(seq=1990) == [(n, b"%d" % (n - 1)) for n in range(1990, 2001)]


def test_a_waiting_pull_and_a_waiting_read_get_what_is_stored_next() -> None:
    with (
        running_broker(ada="admin") as broker,
        set_up(broker) as client,
        Client(broker.address, broker.keys["ada"]) as other,
    ):
        client.send(PULL, {"id": 2, "topic": "orders", "consumer": "shop", "wait": 20_000})
        client.send(READ, {"id": 4, "topic": "orders", "seq": 1, "wait": 20_000})
        assert client.alive()
        other.stores(b"fresh")
        heard = [client.hear() for _ in range(4)]
        assert sorted((code, fields["ref"]) for code, fields, _ in heard) == [
            (OK, 2), (OK, 4), (RECORD, 2), (RECORD, 4),
        ]  # fmt: skip


def test_a_stopping_broker_answers_what_it_was_given_first() -> None:
    with running_broker(ada="admin") as broker:
        with set_up(broker) as client:
            for number in range(500):
                client.send(PUBLISH, {"s": "app.order.new", "id": number}, b"x")
            assert client.hear_only(OK)["seq"] == 1
            broker.signal(signal.SIGTERM)
            answered = 1
            while not client.silent(2) and client.hear()[0] == OK:
                answered += 1
        assert broker.stop() == 0
        broker.start()
        with Client(broker.address, broker.keys["ada"]) as client:
            client.send(READ, {"id": 4, "topic": "orders", "last": 1})
            assert client.hear_only(RECORD)["seq"] >= answered


def damage(path: Path) -> None:
    """Flip one bit of a stored body."""
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"precious") + 3] ^= 1
    path.write_bytes(raw)


def test_a_damaged_store_is_refused_with_the_way_out_which_works() -> None:
    with running_broker(ada="admin") as broker:
        with set_up(broker) as client:
            for number in range(5):
                client.stores(b"precious" if number == 2 else b"other")
            client.pulls(1)
            client.settles(1)
        running = run_cli("repair", str(broker.folder))
        assert running.returncode == 8
        assert "stop the broker first" in running.stderr
        assert broker.stop() == 0
        damage(broker.folder / "topics.db")
        with pytest.raises(AssertionError, match=r"damaged: topic orders: 1 records .*: 3.*repair"):
            broker.start()
        assert broker.process is not None
        assert broker.process.returncode == 8
        mended = run_cli("repair", str(broker.folder))
        assert mended.returncode == 0, mended.stderr
        assert "topic orders: 4 messages saved; lost: 3\n" in mended.stdout
        [kept] = broker.folder.glob("topics.db.damaged-*")
        assert str(kept) in mended.stdout
        broker.start()
        with Client(broker.address, broker.keys["ada"]) as client:
            assert [seq for seq, _ in client.reads_all()] == [1, 2, 4, 5]
            assert [seq for seq, _ in client.pulls()] == [2, 4, 5]
            assert client.stores(b"next") == 6
        assert broker.stop() == 0
        again = run_cli("repair", str(broker.folder))
        assert "nothing is wrong" in again.stdout


def test_a_log_left_without_its_database_is_not_thrown_away_and_gives_all_back() -> None:
    with running_broker(ada="admin") as broker:
        with set_up(broker) as client:
            assert [client.stores(b"%d" % n) for n in range(1, 4)] == [1, 2, 3]
        broker.kill()
        os.truncate(broker.folder / "topics.db", 0)
        log = (broker.folder / "topics.db-wal").read_bytes()
        with pytest.raises(AssertionError, match=r"damaged: it is empty or missing, but its write"):
            broker.start()
        assert (broker.folder / "topics.db-wal").read_bytes() == log
        mended = run_cli("repair", str(broker.folder))
        assert mended.returncode == 0, mended.stderr
        assert "topic orders: 3 messages saved; lost: nothing\n" in mended.stdout
        broker.start()
        with Client(broker.address, broker.keys["ada"]) as client:
            assert client.reads_all() == [(n, b"%d" % n) for n in range(1, 4)]
            assert [seq for seq, _ in client.pulls()] == [1, 2, 3]


def test_a_store_that_another_process_has_open_is_refused() -> None:
    with running_broker(ada="admin") as broker:
        set_up(broker).__exit__(None, None, None)
        assert broker.stop() == 0
        other = sqlite3.connect(broker.folder / "topics.db")
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(AssertionError, match="in use by another process"):
            broker.start()
        other.close()
        broker.start()
