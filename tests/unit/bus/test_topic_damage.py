"""A store that is damaged in every way: nothing is dropped without a word, and a repair always ends."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.signals import ConsumerConfig, TopicConfig
from bus.topics import salvage, schema, wal
from bus.topics.repair import repair
from bus.topics.schema import StoreError
from bus.topics.store import Store
from bus.topics.work import (
    Append,
    ConsumerState,
    Expire,
    PutConsumer,
    PutTopic,
    RemoveTopic,
    SaveConsumer,
)
from tests.support.accounts import unaccounted
from tests.support.stored import (
    KEY,
    ORDERS,
    append,
    closed,
    crashed,
    is_refused,
    mended,
    open_filled,
    read,
)

PAGE = schema.PAGE
TOPICS, NUMBERS, CONSUMERS = 2, 3, 4  # root pages


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "topics.db"


def flip_bit(file: Path, page: int, at: int, bit: int = 1) -> None:
    raw = bytearray(file.read_bytes())
    raw[(page - 1) * PAGE + at] ^= bit
    file.write_bytes(raw)


# Single bits.


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store of one topic with 900 records, and a consumer."""
    path = tmp_path_factory.mktemp("batches") / "topics.db"
    store = Store(path)
    store.carry_out([PutTopic(ORDERS), PutConsumer(ConsumerConfig("orders", "shop"))])
    for first in range(0, 900, 100):
        bodies = [b"order %d " % n for n in range(first, first + 100)]
        store.carry_out([Append("orders", KEY, "app.order.new", bodies, 1000)])
    store.close()
    return path.read_bytes()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("bit", [1, 16, 128])
@pytest.mark.parametrize("at", [0, 3, 4, 5, 6])
@pytest.mark.parametrize("page", [TOPICS, NUMBERS, CONSUMERS])
def test_a_repair_ends_whatever_bit_is_flipped_in_the_head_of_a_table_and_loses_no_record(
    path: Path, batches: bytes, page: int, at: int, bit: int
) -> None:
    path.write_bytes(batches)
    flip_bit(path, page, at, bit)
    report = repair(path, "now")
    assert report is not None
    assert [(topic.messages, topic.lost) for topic in report.topics] == [(900, [])]
    Store(path).close()


def test_a_page_that_says_it_has_no_topics_costs_names_but_no_record(path: Path) -> None:
    closed(path)
    flip_bit(path, TOPICS, 4, 2)  # two rows, it said
    is_refused(path)
    report, lost = mended(path)
    assert lost == {"recovered-1": "", "recovered-2": ""}
    assert [topic.messages for topic in report.topics] == [200, 200]
    notes = report.topics[0].notes
    assert "its entry is lost: its name and its settings are new" in notes
    assert "whether it had messages after 200 is not known" in notes
    assert "its name was orders, as its consumers say" in notes
    store = Store(path)
    store.carry_out([PutTopic(TopicConfig("new", ["app.new"])), append(topic="new")])
    assert len(read(store, "recovered-1")) == len(read(store, "recovered-2")) == 200
    assert read(store, "new") == [(1, b"x")]
    store.close()


def test_the_consumers_of_a_topic_whose_name_is_lost_go_on_under_its_new_one(path: Path) -> None:
    store = open_filled(path, 3)
    [shop] = store.contents.consumers
    store.carry_out([SaveConsumer(shop.number, ConsumerState(2))])
    store.close()
    flip_bit(path, TOPICS, 4, 2)
    mended(path)
    [found] = Store(path).contents.consumers
    assert (found.config.topic, found.config.consumer) == ("recovered-1", "shop")
    assert (found.config.dead, found.state.cursor) == ("dead.orders", 2)


def test_what_a_consumer_has_settled_is_not_published_again_under_its_sequence(path: Path) -> None:
    store = Store(path)
    store.carry_out([PutTopic(ORDERS), PutConsumer(ConsumerConfig("orders", "shop"))])
    store.carry_out([append(b"order %d " % n) for n in range(5)])
    store.carry_out([SaveConsumer(1, ConsumerState(5))])
    store.close()
    flip_bit(path, TOPICS, 4)
    flip_bit(path, 5, 4, 5)  # nor has it records
    assert mended(path)[1] == {"recovered-1": "1-5"}
    store = Store(path)
    store.carry_out([append(b"next", topic="recovered-1")])
    assert read(store, "recovered-1") == [(6, b"next")]
    store.close()


def test_a_page_that_says_it_has_no_consumers_is_told(path: Path) -> None:
    closed(path)
    flip_bit(path, CONSUMERS, 4)
    is_refused(path)
    report, _ = mended(path)
    for topic in report.topics:
        assert topic.notes == ["consumers may be lost: look whether all are there"]
    store = Store(path)
    store.carry_out([PutConsumer(ConsumerConfig("orders", "shop"))])
    assert [found.number for found in store.contents.consumers] == [2]
    store.close()


def test_an_entry_under_a_wrong_number_is_put_back_under_its_own(path: Path) -> None:
    closed(path)
    raw = path.read_bytes()
    page = raw[(TOPICS - 1) * PAGE : TOPICS * PAGE]
    second = int.from_bytes(page[10:12])
    flip_bit(path, TOPICS, second + 1, 8)  # the row id, after the size
    is_refused(path)
    assert mended(path)[1] == {"orders": "", "big": ""}


# What was removed, and what was lost.


def behind(path: Path, statement: str, *values: object) -> None:
    """Carry out a statement behind the store's back."""
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_records_of_a_topic_that_nobody_removed_are_refused_and_not_deleted(path: Path) -> None:
    closed(path)
    behind(path, "DELETE FROM topics WHERE name = 'big'")
    assert "there are records of a topic 2, which has no entry" in is_refused(path)
    assert mended(path)[1] == {"orders": "", "recovered-2": ""}


def test_a_consumer_of_a_topic_that_nobody_removed_is_refused(path: Path) -> None:
    closed(path)
    behind(path, "DELETE FROM topics WHERE name = 'orders'")
    behind(path, "DELETE FROM records WHERE id < 2 << 40")
    assert "consumer number 1 is of no topic" in is_refused(path)
    assert mended(path)[1] == {"recovered-1": "", "big": ""}


@pytest.mark.parametrize("rounds", [0, 1, 9])
def test_a_removed_topic_does_not_come_back_with_a_repair(
    path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr("bus.topics.retention.SLICE", 60)
    store = open_filled(path)
    store.carry_out([RemoveTopic("orders")])
    for _ in range(rounds):
        store.carry_out([Expire(0)])
    store.close()
    Store(path).close()
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"large 77 large 77") + 3] ^= 1
    path.write_bytes(raw)
    is_refused(path)
    assert mended(path)[1] == {"big": "78"}
    store = Store(path)
    store.carry_out([PutTopic(ORDERS)])
    assert read(store) == []
    store.close()


def test_records_behind_an_entry_that_is_older_than_they_are_kept(path: Path) -> None:
    closed(path)
    row = schema.topic_row(1, ORDERS, (1, 150, 150, 9999, 1000))
    behind(path, "INSERT OR REPLACE INTO topics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)
    is_refused(path)
    report, lost = mended(path)
    assert lost == {"orders": "", "big": ""}
    assert report.topics[0].messages == 200


# A log that may be the only copy.


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [missing, empty])
def test_a_log_whose_database_is_gone_is_refused_untouched_and_repaired_from(
    path: Path, harm: Callable[[Path], None]
) -> None:
    found = crashed(path, 3)
    harm(found)
    log = wal.log_of(found).read_bytes()
    assert "it is empty or missing, but its write-ahead log topics.db-wal is not" in is_refused(
        found
    )
    assert wal.log_of(found).read_bytes() == log
    assert found.exists() == (harm is empty)
    assert mended(found)[1] == {"orders": "", "big": ""}
    store = Store(found)
    assert (len(read(store)), len(read(store, "big"))) == (3, 3)
    assert [consumer.config.consumer for consumer in store.contents.consumers] == ["shop"]
    store.close()
    assert found.with_name("topics.db.damaged-now-wal").read_bytes() == log


def test_a_database_that_lacks_pages_which_its_log_has_not_is_refused_untouched(path: Path) -> None:
    store = Store(path)
    store.carry_out([PutTopic(ORDERS), append(b"order 0 ")])
    cut = path.with_name("cut.db")
    cut.write_bytes(path.read_bytes()[: 2 * PAGE + 100])
    shutil.copy(wal.log_of(path), wal.log_of(cut))
    store.close()
    log = wal.log_of(cut).read_bytes()
    assert "it has 2 pages and not the 7 that its write-ahead log counts on" in is_refused(cut)
    assert wal.log_of(cut).read_bytes() == log
    report = repair(cut, "now")
    assert report is not None
    assert [(topic.topic, topic.messages, topic.lost) for topic in report.topics] == [
        ("orders", 1, [])
    ]


def test_a_database_that_lacks_only_what_its_log_has_is_whole(path: Path) -> None:
    found = crashed(path, 3)
    os.truncate(found, PAGE)
    assert repair(found, "now") is None
    store = Store(found)
    assert (len(read(store)), len(read(store, "big"))) == (3, 3)
    store.close()


def test_a_log_that_holds_nothing_is_no_reason_to_refuse(path: Path) -> None:
    for content in (b"", bytes(32), bytes(32 + 2 * (24 + PAGE))):
        wal.log_of(path).write_bytes(content)
        Store(path).close()
    with pytest.raises(StoreError, match="no such file"):
        repair(path, "now")


# Cuts, and what SQLite says of them.


def test_a_file_cut_anywhere_keeps_what_is_before_the_cut(path: Path) -> None:
    closed(path)
    good = path.read_bytes()
    for length in range(2 * PAGE, 12 * PAGE, PAGE // 2):
        path.write_bytes(good[:length])
        is_refused(path)
        report, _ = mended(path)
        assert unaccounted(good, good[:length], report, path) == set()
        for file in path.parent.iterdir():
            file.unlink()


def test_of_a_file_without_anything_in_it_nothing_is_made(path: Path) -> None:
    for content in (b"", closed(path).read_bytes()[:PAGE]):
        path.write_bytes(content)
        is_refused(path)
        with pytest.raises(StoreError, match=r"topics\.db: nothing is left of it; move it away"):
            repair(path, "now")
        assert [file.name for file in path.parent.iterdir()] == ["topics.db"]
        assert path.read_bytes() == content


def test_what_sqlite_cannot_do_is_told_of_the_file_and_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed(path)
    flip_bit(path, CONSUMERS, 4)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(salvage, "keep_numbers", full)
    with pytest.raises(StoreError) as caught:
        repair(path, "now")
    assert (
        str(caught.value) == f"{path}: not repaired: database or disk is full; nothing has changed"
    )
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["topics.db"]


def test_a_newer_version_is_told_of_the_file_and_not_of_a_copy(path: Path) -> None:
    closed(path)
    behind(path, "ALTER TABLE records ADD COLUMN more")
    behind(path, "PRAGMA user_version = 9")
    with pytest.raises(StoreError) as caught:
        repair(path, "now")
    assert str(caught.value).startswith(f"{path}: version 9 of the tables")
