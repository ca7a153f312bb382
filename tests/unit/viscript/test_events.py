"""Events: numbers that go on, bounded files, and followers who miss nothing unnoticed."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from viscript import eventlog
from viscript.eventlog import EventLog
from viscript.events import Event, Follower, Page, Published, sentence


def event(seq: int = 0, **more) -> Event:
    return Event(
        seq=seq, ts=1.0, app="web", id=3, before="starting", to="running", cause="ready", **more
    )


def opened(folder: Path, boot: str = "b") -> EventLog:
    return EventLog(folder / "events.jsonl", "here", boot)


def test_numbers_go_on_over_a_restart(tmp_path):
    log = opened(tmp_path)
    assert [log.add(event()).seq for _ in range(3)] == [1, 2, 3]
    again = opened(tmp_path)  # the first is not closed: it was killed
    assert again.last == 3
    assert again.add(event()).seq == 4
    assert [e.seq for e in again.page(2, 0).events] == [3, 4]


def test_after_another_boot_a_gap_is_left_for_what_was_not_synced(tmp_path):
    opened(tmp_path).add(event())
    again = opened(tmp_path, boot="c")
    seq = again.add(event()).seq
    assert seq > 2
    assert not again.page(1, 0).complete
    assert [e.seq for e in again.history(lambda _: True, 10)] == [1, seq]


def test_a_torn_line_costs_only_itself(tmp_path):
    log = opened(tmp_path)
    log.add(event())
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"seq": 2, "ts": 1')
    again = opened(tmp_path)
    again.add(event(text="after"))
    assert [e.text for e in again.history(lambda _: True, 10)] == ["", "after"]


def test_files_are_bounded_and_the_older_one_is_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(eventlog, "FILE_BYTES", 2000)
    log = opened(tmp_path)
    for _ in range(100):
        log.add(event())
    sizes = [path.stat().st_size for path in tmp_path.glob("events.jsonl*")]
    assert sum(sizes) < 4500
    kept = [e.seq for e in log.history(lambda _: True, 1000)]
    assert kept == list(range(kept[0], 101))
    assert opened(tmp_path).last == 100


def test_a_disk_that_takes_nothing_costs_lines_not_numbers(tmp_path, monkeypatch):
    log = opened(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        log.add(event())
    assert log.add(event()).seq == 2
    assert [e.seq for e in log.page(0, 0).events] == [1, 2]
    assert [e.seq for e in log.history(lambda _: True, 10)] == [2]


def test_a_folder_that_is_not_there_yet_costs_one_warning_and_no_event(tmp_path, caplog):
    log = EventLog(tmp_path / "later" / "events.jsonl", "here", "b")
    caplog.clear()
    log.add(event())
    log.add(event())
    assert [e.seq for e in log.page(0, 0).events] == [1, 2]
    assert caplog.records == []
    (tmp_path / "later").mkdir()
    log.add(event())
    assert [e.seq for e in log.history(lambda _: True, 10)] == [3]


def test_the_text_of_an_event_is_one_bounded_line(tmp_path):
    text = opened(tmp_path).add(event(text="a\nb\x1b[31m" + "x" * 1000)).text
    assert text.startswith("a\\nbx")
    assert len(text) <= 400


def test_an_event_is_a_line_for_people():
    shown = sentence(event(by="cli", text="pid 7"), lambda _: "12:00:00")
    assert shown == "12:00:00  web (ID 3)  starting -> running  (ready; by cli; pid 7)"


def test_a_follower_takes_nothing_before_it_has_a_snapshot():
    follower = Follower()
    assert follower.offer(Published(host="h", last=1, event=event(1))) == []
    assert follower.missing
    assert follower.after is None


def page(log: EventLog, follower: Follower) -> Page:
    found = log.page(follower.after, 0)
    if follower.after is None:
        return Page(host="h", last=found.last, complete=True, events=[], launches=[])
    return found


class Following:
    """A daemon's log and one who follows it; `shown` is what was shown since the last snapshot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boots = 0
        self.log = opened(folder)
        self.follower = Follower()
        self.shown: list[int] = []
        self.fetch()

    def fetch(self) -> None:
        for _ in range(5):
            if not self.follower.missing:
                return
            snapshot = self.follower.after is None
            new = self.follower.page(page(self.log, self.follower))
            if snapshot:
                self.shown = [self.log.last]
            self.shown.extend(e.seq for e in new)
        raise AssertionError("it fetches without end")

    def add(self) -> None:
        made = self.log.add(event())
        new = self.follower.offer(Published(host="h", last=self.log.last, event=made))
        self.shown.extend(e.seq for e in new)

    def lost(self) -> None:
        self.log.add(event())

    def beat(self) -> None:
        self.follower.offer(Published(host="h", last=self.log.last))

    def restart(self) -> None:
        self.log.close()
        self.log = opened(self.folder, boot=f"b{self.boots}" if self.boots else "b")

    def reboot(self) -> None:
        self.boots += 1
        self.restart()


@given(
    st.lists(st.sampled_from(["add", "lost", "beat", "restart", "reboot", "fetch"]), max_size=40)
)
@settings(max_examples=60)
def test_a_follower_shows_every_event_once_and_in_order_or_takes_a_snapshot(steps):
    with TemporaryDirectory() as folder:
        following = Following(Path(folder))
        for step in steps:
            getattr(following, step)()
            shown = following.shown
            assert shown == list(range(shown[0], shown[0] + len(shown)))
        following.beat()
        following.fetch()
        assert following.shown[-1] == following.follower.after == following.log.last
        following.log.close()
