"""A store of durable topics to be damaged, and what a repair has to account for."""

import shutil
from pathlib import Path

import pytest

from bus.signals import ConsumerConfig, TopicConfig
from bus.topics.repair import Report, repair, stretches
from bus.topics.schema import StoreDamaged
from bus.topics.store import Store
from bus.topics.work import Append, Page, PutConsumer, PutTopic, ReadPage

ORDERS = TopicConfig("orders", ["app.order.>"])
KEY = "k" * 40


def append(body: bytes = b"x", topic: str = "orders", t: int = 1000, mid: str = "") -> Append:
    return Append(topic, KEY, "app.order.new", [body], t, mid)


def read(store: Store, topic: str = "orders", n: int = 10_000) -> list[tuple[int, bytes]]:
    [page] = store.carry_out([ReadPage(topic, n, 1 << 30)])
    assert isinstance(page, Page), page
    return [(record.seq, record.body) for record in page.records]


def open_filled(path: Path, messages: int = 200) -> Store:
    """A store with two topics and a consumer, each message in a transaction of its own."""
    store = Store(path)
    store.carry_out([PutTopic(ORDERS), PutTopic(TopicConfig("big", ["app.big"]))])
    store.carry_out([PutConsumer(ConsumerConfig("orders", "shop"))])
    for number in range(messages):
        small = append(b"order %d " % number * 9, mid=f"m{number}")
        large = append(b"large %d " % number * 700, "big")
        store.carry_out([small, large])
    return store


def crashed(path: Path, messages: int = 200) -> Path:
    """The files as `kill -9` leaves them: the log is not in the database yet."""
    store = open_filled(path, messages)
    copy = path.with_name("crashed")
    copy.mkdir()
    for file in path.parent.glob("topics.db*"):
        shutil.copy(file, copy)
    store.close()
    return copy / "topics.db"


def closed(path: Path) -> Path:
    open_filled(path).close()
    return path


def flip(file: Path, at: int, count: int = 1) -> None:
    raw = bytearray(file.read_bytes())
    for index in range(at, at + count):
        raw[index] ^= 0x55
    file.write_bytes(raw)


def is_refused(path: Path) -> str:
    with pytest.raises(StoreDamaged) as caught:
        Store(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: damaged: ")
    assert text.endswith(f"bus-broker repair {path.parent}")
    return text


def mended(path: Path) -> tuple[Report, dict[str, str]]:
    """Repair it; the report, and what it says is lost per topic."""
    report = repair(path, "now")
    assert report is not None
    assert report.kept == path.with_name("topics.db.damaged-now")
    store = Store(path)
    for topic in report.topics:
        held = [seq for seq, _ in read(store, topic.topic)]
        gone = {seq for a, b in topic.lost for seq in range(a, b + 1)}
        assert len(held) == topic.messages
        assert not gone & set(held)
    store.close()
    left = {file.name for file in path.parent.iterdir() if file.is_file()}
    assert left <= {"topics.db", report.kept.name, report.kept.name + "-wal"}
    return report, {topic.topic: stretches(topic.lost) for topic in report.topics}
