"""The thread that owns the store: order, bounds, what gathers, and the end."""

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.errors import RemoteProtocolError
from bus.signals import TopicConfig, TopicInfo
from bus.topics import journal as module
from bus.topics.journal import Journal
from bus.topics.store import Store
from bus.topics.work import Append, Appended, Page, PutTopic, ReadPage, Work


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "topics.db")
    yield made
    made.close()


def outcomes(journal: Journal, count: int) -> list[object]:
    """Wait for so many outcomes."""
    found: list[object] = []
    while len(found) < count:
        assert select.select([journal], [], [], 10)[0], found
        for then, outcome in journal.take():
            if then is journal.changed:
                then(outcome, 0.0)
            else:
                found.append(outcome)
    return found


def nobody(_outcome: object, _now: float) -> None:
    pass


def append(body: bytes = b"x") -> Work:
    return Append("orders", "k", "app.order.new", [body], 0)


def test_works_are_carried_out_in_their_order_and_told_in_it(journal: Journal) -> None:
    heard: list[TopicInfo] = []
    journal.changed = lambda info, _now: heard.append(info)
    journal.submit(PutTopic(TopicConfig("orders", ["app.order.>"])), nobody)
    for _ in range(500):
        assert journal.submit(append(), nobody)
    assert journal.submit(ReadPage("orders", 256, 1 << 20, last=1), nobody)
    assert journal.busy
    info, *stored, page = outcomes(journal, 502)
    assert isinstance(info, TopicInfo)
    assert stored == [Appended(n) for n in range(1, 501)]
    assert isinstance(page, Page)
    assert heard[-1].last == 500
    assert not journal.busy
    assert journal.take() == []


def test_what_waits_is_bounded_in_works_and_in_bytes(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WORKS", 5)
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    assert journal.submit(append(b"x" * 60), nobody)
    assert not journal.submit(append(b"x" * 60), nobody)
    assert all(journal.submit(append(), nobody) for _ in range(4))
    assert not journal.submit(append(), nobody)
    outcomes(journal, 5)
    assert journal.submit(append(b"x" * 60), nobody)
    outcomes(journal, 1)


def test_the_end_carries_out_what_waits(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "topics.db")
    journal.submit(PutTopic(TopicConfig("orders", ["app.order.>"])), nobody)
    for _ in range(100):
        journal.submit(append(), nobody)
    journal.close()
    store = Store(tmp_path / "topics.db")
    [info] = store.contents.topics
    assert info.last == 100
    store.close()


def test_a_defect_of_the_store_is_told_and_the_thread_lives_on(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "carry_out", lambda _self, _works: 1 / 0)
        journal.submit(append(), nobody)
        [failure] = outcomes(journal, 1)
    assert isinstance(failure, RemoteProtocolError)
    assert failure.code == 500
    journal.submit(PutTopic(TopicConfig("orders", ["app.order.>"])), nobody)
    assert isinstance(outcomes(journal, 1)[0], TopicInfo)
