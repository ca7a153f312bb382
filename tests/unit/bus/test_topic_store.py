"""The store of durable topics on a real file: transactions, damage, and what is saved of it."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus.errors import RemoteProtocolError
from bus.signals import TopicConfig
from bus.topics import schema, wal
from bus.topics.repair import repair
from bus.topics.schema import StoreError
from bus.topics.store import Store
from bus.topics.work import (
    Appended,
    ConsumerState,
    Expire,
    Page,
    PutTopic,
    ReadPage,
    RemoveTopic,
    SaveConsumer,
    Work,
)
from tests.support.accounts import unaccounted
from tests.support.stored import (
    ORDERS,
    append,
    closed,
    crashed,
    flip,
    is_refused,
    mended,
    open_filled,
    read,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "topics.db"


# Transactions.


def test_nothing_is_made_before_the_first_topic(path: Path) -> None:
    store = Store(path)
    [answer] = store.carry_out([append()])
    assert isinstance(answer, RemoteProtocolError)
    assert (answer.code, answer.err) == (404, "no_topic")
    assert list(path.parent.iterdir()) == []
    store.carry_out([PutTopic(ORDERS)])
    assert path.stat().st_mode & 0o777 == 0o600


class Failing:
    """A connection whose commits fail, as SQLite's do."""

    def __init__(self, real: sqlite3.Connection, code: str) -> None:
        self.real = real
        self.code = code

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "COMMIT" and self.code:
            error = sqlite3.OperationalError("it fails")
            error.sqlite_errorname = self.code
            raise error
        return self.real.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize(
    ("code", "answer"), [("SQLITE_FULL", (507, "store_full")), ("SQLITE_IOERR", (500, "internal"))]
)
def test_a_transaction_that_fails_leaves_everything_as_it_was_and_the_next_works(
    path: Path, code: str, answer: tuple[int, str]
) -> None:
    store = Store(path)
    store.carry_out([PutTopic(ORDERS), append(b"1", mid="a")])
    assert store._db is not None
    failing = Failing(store._db, code)
    store._db = failing  # type: ignore[assignment]
    works: list[Work] = [append(b"2", mid="b"), PutTopic(TopicConfig("more", ["app.more"]))]
    outcomes = store.carry_out([*works, ReadPage("orders", 9, 100)])
    assert [(o.code, o.err) for o in outcomes[:2]] == [answer] * 2  # type: ignore[attr-defined]
    assert isinstance(outcomes[2], Page)
    assert [record.body for record in outcomes[2].records] == [b"1"]
    assert store.problem
    failing.code = ""
    assert store.carry_out([append(b"2", mid="b"), append(b"1", mid="a")]) == [
        Appended(2), Appended(1, dup=True),
    ]  # fmt: skip
    assert not store.problem
    assert read(store) == [(1, b"1"), (2, b"2")]
    store.close()
    assert [info.config.topic for info in Store(path).contents.topics] == ["orders"]


def test_times_never_go_back_within_a_topic(path: Path) -> None:
    store = Store(path)
    store.carry_out([PutTopic(ORDERS), append(t=5000), append(t=1000)])
    [page] = store.carry_out([ReadPage("orders", 9, 100, time=4000)])
    assert isinstance(page, Page)
    assert [record.t for record in page.records] == [5000, 5000]


def test_a_removed_topic_is_swept_in_slices_and_its_number_is_not_used_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.topics.retention.SLICE", 10)
    store = open_filled(path, 25)
    store.carry_out([RemoveTopic("orders")])
    store.close()
    store = Store(path)  # it goes on after a restart
    store.carry_out([PutTopic(ORDERS)])
    rounds = 0
    while store.carry_out([Expire(0)]) == [True]:
        rounds += 1
        assert store.carry_out([append()]) == [Appended(rounds)]
    assert 3 <= rounds <= 5
    assert read(store) == [(n, b"x") for n in range(1, rounds + 1)]
    assert len(read(store, "big")) == 25
    store.close()
    Store(path).close()


def test_what_is_saved_of_a_consumer_is_what_was_last_said(path: Path) -> None:
    store = open_filled(path, 3)
    [stored] = store.contents.consumers
    store.carry_out([SaveConsumer(stored.number, ConsumerState(n, {n: 2, 1: -1})) for n in (2, 3)])
    store.close()
    [again] = Store(path).contents.consumers
    assert again.state == ConsumerState(3, {3: 2, 1: -1})


def test_a_file_that_was_vacuumed_is_smaller_and_as_good(path: Path) -> None:
    store = open_filled(path)
    with pytest.raises(sqlite3.OperationalError, match="locked"):  # it has the file for itself
        sqlite3.connect(path, timeout=0).execute("VACUUM")
    store.carry_out([RemoveTopic("big")])
    while store.carry_out([Expire(0)]) == [True]:
        pass
    store.close()
    before = path.stat().st_size
    connection = sqlite3.connect(path)
    connection.execute("VACUUM")
    connection.close()
    assert path.stat().st_size < before / 10
    assert path.stat().st_mode & 0o777 == 0o600
    store = Store(path)
    assert len(read(store)) == 200
    store.close()
    flip(path, path.read_bytes().index(b"order 77 order 77") + 3)
    assert mended(path)[1] == {"orders": "78"}


# Damage.


def changed(path: Path, statement: str) -> None:
    """Close a store, and carry out a statement behind its back."""
    closed(path)
    connection = sqlite3.connect(path)
    connection.executescript(statement)
    connection.close()


@pytest.mark.parametrize("make", [closed, crashed])
def test_what_is_whole_is_opened_and_needs_no_repair(
    path: Path, make: Callable[[Path], Path]
) -> None:
    found = make(path)
    assert repair(found, "now") is None
    store = Store(found)
    assert len(read(store)) == 200
    store.close()


def test_a_flipped_bit_in_a_body_costs_that_record(path: Path) -> None:
    closed(path)
    flip(path, path.read_bytes().index(b"order 77 order 77") + 3)
    assert "topic orders: 1 records without their checksum: 78" in is_refused(path)
    assert mended(path)[1] == {"orders": "78", "big": ""}


def test_a_flipped_bit_that_makes_a_subject_no_text_costs_that_record(path: Path) -> None:
    closed(path)
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"app.order", 0, raw.index(b"order 77 order 77"))] ^= 0x80
    path.write_bytes(raw)
    assert "topic orders: 1 records without their checksum: 78" in is_refused(path)
    assert mended(path)[1] == {"orders": "78", "big": ""}


def test_a_flipped_bit_that_is_met_later_is_told_to_who_reads(path: Path) -> None:
    store = open_filled(path, 5)
    assert store._db is not None
    store._db.execute("UPDATE records SET body = x'00' WHERE id & 0xff = 3 AND length(body) < 99")
    [page] = store.carry_out([ReadPage("orders", 9, 1 << 20)])
    assert isinstance(page, RemoteProtocolError)
    assert (page.code, page.err) == (500, "damaged")
    assert "topic orders: record 3" in str(page)
    [page] = store.carry_out([ReadPage("orders", 9, 1 << 20, seq=4)])
    assert isinstance(page, Page)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return closed(tmp_path_factory.mktemp("filled") / "topics.db").read_bytes()


def head_gone(page: bytes) -> bytes:
    return bytes(byte ^ 0x55 for byte in page[:60]) + page[60:]


def says_it_is_empty(page: bytes) -> bytes:
    return page[:3] + bytes(2) + page[5:]


def one_bit(page: bytes) -> bytes:
    """In how many rows it says that there are."""
    return page[:4] + bytes([page[4] ^ 16]) + page[5:]


@pytest.mark.parametrize("harm", [head_gone, says_it_is_empty, one_bit])
@pytest.mark.parametrize("page", range(1, 12))
def test_whichever_page_is_damaged_all_records_elsewhere_are_saved(
    path: Path, filled: bytes, page: int, harm: Callable[[bytes], bytes]
) -> None:
    head = (page - 1) * schema.PAGE + (100 if page == 1 else 0)
    path.write_bytes(filled[:head] + harm(filled[head:]))
    is_refused(path)
    damaged = path.read_bytes()
    report, _ = mended(path)
    assert unaccounted(filled, damaged, report, path) == set()
    assert sum(topic.messages for topic in report.topics) >= 400 - 60
    names = {topic.topic for topic in report.topics}
    if page != 2 or harm is one_bit:  # which has the topics' entries
        assert names == {"orders", "big"}
    else:
        assert names == {"recovered-1", "recovered-2"}
        assert "its entry is lost" in report.topics[0].notes[0]
    if page == 4:
        assert "consumers may be lost: look whether all are there" in report.topics[0].notes


def test_a_file_cut_short_keeps_what_is_before_the_cut(path: Path) -> None:
    closed(path)
    os.truncate(path, path.stat().st_size // 2 // schema.PAGE * schema.PAGE)
    is_refused(path)
    report, lost = mended(path)
    assert sum(topic.messages for topic in report.topics) > 150
    assert lost["orders"].endswith("-200")


def test_a_file_that_is_something_else_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to look at" * 100)
    is_refused(path)


def test_a_newer_version_of_the_tables_is_refused_by_name(path: Path) -> None:
    changed(path, "ALTER TABLE records ADD COLUMN more; PRAGMA user_version = 9")
    with pytest.raises(StoreError, match="version 9 of the tables; this broker knows version 1"):
        Store(path)


@pytest.mark.parametrize("number", [0, 3, 9, -2147483647])
def test_a_damaged_version_is_not_taken_for_another_one(path: Path, number: int) -> None:
    changed(path, f"PRAGMA user_version = {number}")
    assert f"it says version {number} over tables of 1" in is_refused(path)
    _, lost = mended(path)
    assert not any(lost.values())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records WHERE id & 0xff = 9",
        "UPDATE topics SET last = last + 1",
        "UPDATE consumers SET state = x'92cd0fff80'",
        "INSERT INTO records SELECT id + 900, t, subject, sender, crc, body FROM records LIMIT 1",
    ],
)
def test_what_was_changed_behind_its_back_is_noticed(path: Path, statement: str) -> None:
    changed(path, statement)
    is_refused(path)
    mended(path)


def test_a_consumer_whose_entry_is_damaged_is_named(path: Path) -> None:
    changed(path, "UPDATE consumers SET state = x'92cd0fff80'")
    report, _ = mended(path)
    assert "shop; make it again" in report.topics[0].notes[0]


# The write-ahead log.


def test_a_torn_end_of_the_log_is_no_damage(path: Path) -> None:
    found = crashed(path)
    log = wal.log_of(found)
    last = max(frame.number for frame in wal.frames(log))
    os.truncate(log, 32 + (24 + schema.PAGE) * last - 1000)
    store = Store(found)
    assert [seq for seq, _ in read(store)] == list(range(1, 200))
    store.close()


@pytest.mark.parametrize("offset", [0, 4, 500])
def test_damage_in_the_middle_of_the_log_is_told_and_nothing_behind_it_is_lost(
    path: Path, offset: int
) -> None:
    found = crashed(path)
    flip(wal.log_of(found), 32 + (24 + schema.PAGE) * 100 + offset)
    assert "frame 101 of its write-ahead log" in is_refused(found)
    _, lost = mended(found)
    assert sum(len(text) > 0 for text in lost.values()) <= 1
    assert found.with_name("topics.db.damaged-now-wal").exists()


def test_a_damaged_head_of_the_log_is_told_and_nothing_behind_it_is_lost(path: Path) -> None:
    found = crashed(path)
    flip(wal.log_of(found), 17)
    assert "the head of its write-ahead log" in is_refused(found)
    assert mended(found)[1] == {"orders": "", "big": ""}


def test_a_repair_that_was_interrupted_is_done_again_before_the_broker_starts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = crashed(path)
    flip(wal.log_of(found), 32 + (24 + schema.PAGE) * 100 + 500)
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if target == found:
            raise OSError(28, "the power is cut here")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(OSError, match="power"):
            repair(found, "now")
    with pytest.raises(StoreError, match="a repair did not get to its end; run it again"):
        Store(found)
    report = repair(found, "later")
    assert report is not None
    assert report.kept.name == "topics.db.damaged-now"
    assert sum(topic.messages for topic in report.topics) >= 399
    store = Store(found)
    assert len(read(store)) >= 199
    store.close()


def test_a_store_in_use_is_neither_opened_nor_repaired(path: Path) -> None:
    store = open_filled(path, 1)
    in_child(lambda: Store(path), "in use by another process")
    in_child(lambda: repair(path, "now"), "a broker uses it")
    store.close()


def in_child(act: Callable[[], object], problem: str) -> None:
    """Locks are a process's own, so that another must try."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            os.write(write_end, b"it worked")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        assert problem in answer.read()
    os.waitpid(child, 0)
