"""Launches on disk."""

import sqlite3

import pytest

from viscript.errors import Failed
from viscript.generation import UNSEEN
from viscript.records import ExitInfo, Record
from viscript.state import Store, peek


def record(app: str = "a") -> Record:
    return Record(
        id=0, app=app, state="running", key="k", since=1.5, args=["x"], started=1.0, slot=app,
        session=1, role="app",
    )  # fmt: skip


def test_ids_rise_and_are_never_used_again(tmp_path):
    store = Store(tmp_path / "db")
    first, second = store.add(record()), store.add(record())
    assert (first.id, second.id) == (1, 2)
    store._db.execute("DELETE FROM launches")
    store.close()
    assert Store(tmp_path / "db").add(record()).id == 3


def test_records_come_back_as_they_were(tmp_path):
    store = Store(tmp_path / "db")
    kept = store.add(record())
    kept.exit, kept.pid = ExitInfo(None, "SIGKILL", "by itself"), 7
    store.save(kept)
    store.close()
    store = Store(tmp_path / "db")
    assert store.get(1) == kept
    assert store.get(9) is None
    assert store.live() == [kept]
    kept.ended = 9.0
    store.save(kept)
    assert store.live() == []
    assert store.ended(5) == [kept]
    assert store.last_of("a") == kept


def lasts(store: Store) -> bool:
    """What was written last waited for the disk."""
    return bool(store._db.execute("PRAGMA synchronous").fetchone() == (2,))


def test_a_launch_and_whether_it_is_to_run_survive_a_power_cut(tmp_path):
    store = Store(tmp_path / "db")
    kept = store.add(record())
    assert lasts(store)
    kept.state = "starting"
    store.save(kept)
    assert not lasts(store)  # how it is doing is over then
    again = store.add(record())
    assert lasts(store)
    kept.stop = True
    store.save(kept)
    assert lasts(store)
    store.save(again)
    store.close()
    store = Store(tmp_path / "db")
    store.save(again)
    assert not lasts(store)
    kept.stop = False  # somebody wants it to run after all
    store.save(kept)
    assert lasts(store)
    store.save(kept)
    assert not lasts(store)


def test_what_is_changed_together_fails_together_with_the_reason(tmp_path):
    store = Store(tmp_path / "db")
    store._db.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Failed, match="cannot be written: database is locked"):
        store.add(record())
    with pytest.raises(Failed, match="cannot be written"), store.together():
        raise AssertionError("nothing was to be done")
    other.execute("ROLLBACK")
    assert store.add(record()).id == 1


def test_old_launches_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr("viscript.state.KEPT", 2)
    store = Store(tmp_path / "db")
    for _ in range(5):
        ended = store.add(record())
        ended.ended = 1.0
        store.save(ended)
    live = store.add(record())
    assert [r.id for r in store.prune()] == [3, 2, 1]
    assert [r.id for r in store.ended(10)] == [4, 5]
    assert store.live() == [live]


def test_what_has_just_ended_is_not_forgotten_however_long_it_ran(tmp_path, monkeypatch):
    monkeypatch.setattr("viscript.state.KEPT", 2)
    store = Store(tmp_path / "db")
    old = store.add(record())
    for when in (1.0, 2.0, 3.0):
        ended = store.add(record())
        ended.ended = when
        store.save(ended)
    old.ended = 4.0
    store.save(old)
    assert [r.id for r in store.prune()] == [3, 2]
    assert store.get(old.id) == old


def test_sessions_count_the_times_that_all_came_up(tmp_path):
    store = Store(tmp_path / "db")
    assert not store.is_up
    store.begin()
    assert (store.session, store.is_up) == (1, True)
    store.finish()
    assert not store.is_up
    store.begin()
    assert store.session == 2


def test_a_broken_database_is_named(tmp_path):
    (tmp_path / "db").write_text("rubbish" * 1000)
    with pytest.raises(Failed, match=r"db: cannot be used.*move it away"):
        Store(tmp_path / "db")


def test_how_an_end_is_told():
    assert str(ExitInfo.of(3, None, "by itself")) == "3, by itself"
    assert str(ExitInfo.of(None, 9, "stopped")) == "SIGKILL, stopped"
    assert ExitInfo.of(None, 40, "by itself").signal == "SIG40"
    assert str(ExitInfo.of(None, None, UNSEEN)) == "unknown, nobody saw it end"


def test_a_full_disk_is_said_and_what_is_stored_stays(tmp_path):
    store = Store(tmp_path / "db")
    kept = store.add(record())
    store._db.execute("PRAGMA max_page_count = 1")  # that is: as many as there are
    kept.reason = "x" * 100_000
    with pytest.raises(Failed, match=r"db: cannot be written: .*full"):
        store.save(kept)
    assert [x.reason for x in peek(tmp_path / "db")] == [""]
    assert store.get(kept.id) == kept
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.save(store.add(record()))  # what could not be stored is, with the next
    assert [x.reason for x in peek(tmp_path / "db")] == [kept.reason, ""]


def test_what_the_first_release_stored_is_still_understood(tmp_path):
    store = Store(tmp_path / "db")
    old = (
        '{"id": 1, "app": "a", "state": "running", "key": "k", "since": 1.5, "args": [], "started": 1.0,'
        '"slot": "a-2", "session": 1, "role": "app", "after": ["b"], "on_bus": true, "restart": "always"}'
    )
    store._db.execute("INSERT INTO launches (id, app, live, record) VALUES (1, 'a', 1, ?)", (old,))
    [found] = store.live()
    assert (found.restart.policy, found.after[0].app, found.instance) == ("always", "b", 1)
    assert found.on_bus


def test_what_has_failed_is_listed_until_it_is_cleared(tmp_path):
    store = Store(tmp_path / "db")
    failed = store.add(record())
    failed.state, failed.ended = "failed", 2.0
    store.save(failed)
    well = store.add(record())
    well.state, well.ended = "exited", 2.0
    store.save(well)
    assert store.failed() == [failed]
    failed.cleared = True
    store.save(failed)
    assert store.failed() == []


def test_what_is_begun_together_survives_a_power_cut_once_that_is_asked_for(tmp_path):
    store = Store(tmp_path / "db")
    store.begin(lasting=False)
    with store.together(lasting=False):
        store.add(record())
    assert not lasts(store)
    store.make_lasting()
    assert lasts(store)
    assert store.is_up
    store.finish()
    store.make_lasting()
    assert not store.is_up
