"""Logs are read as they were printed: backwards, by time, and on through rotations."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from viscript.keeping.log import Log
from viscript.logfiles import Reader, segments
from viscript.rules import LogRule


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("viscript.keeping.log.time.time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def writer(folder: Path, **rule: float) -> Log:
    return Log(str(folder / "log"), asdict(LogRule(**rule)))


def texts(reader: Reader) -> list[str]:
    found = [x.text.decode() for x in (*reader.lines(), *reader.rest())]
    reader.close()
    return found


def numbered(log: Log, first: int, end: int) -> None:
    for number in range(first, end):
        log.write(b"line %d\n" % number)
        log.pack()


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5, 150, 390, 10_000])
def test_the_last_lines_are_found_across_files(tmp_path, gzip, count):
    log = writer(tmp_path, size=1000, files=5, gzip=gzip)
    numbered(log, 0, 400)
    log.close()
    kept = texts(Reader(tmp_path / "log"))
    assert kept[-1] == "line 399"
    assert len(segments(tmp_path / "log")) == 5
    found = texts(Reader(tmp_path / "log", last=count))
    assert found == (kept[-count:] if count else [])


@pytest.mark.parametrize("left", [3, 700])
def test_what_a_power_cut_has_left_of_a_compressed_file_is_shown_and_said_to_be_damaged(
    tmp_path, left
):
    log = writer(tmp_path, size=10_000, files=2, gzip=True)
    numbered(log, 0, 1200)
    log.close()
    packed = tmp_path / "log.1.gz"
    packed.write_bytes(packed.read_bytes()[:left])
    kept = texts(Reader(tmp_path / "log"))
    assert any("log.1.gz is damaged from here on" in line for line in kept)
    assert kept[-1] == "line 1199"
    assert texts(Reader(tmp_path / "log", last=3)) == kept[-3:]
    assert texts(Reader(tmp_path / "log", last=10_000)) == kept
    texts(Reader(tmp_path / "log", since=0.0))


@given(st.binary(max_size=200))
def test_an_index_of_anything_does_no_harm(tmp_path_factory, index):
    path = tmp_path_factory.mktemp("index") / "log"
    path.write_bytes(b"one\ntwo\n")
    path.with_name("log.idx").write_bytes(index)
    for reader in (Reader(path), Reader(path, last=1), Reader(path, since=1000.0)):
        for line in reader.lines():
            assert line.time is None or 0 <= line.time < 1e11
        reader.close()


@given(
    st.lists(st.sampled_from([b"a", b"bb\n", b"\n", b"\xff\n"]), max_size=40), st.integers(0, 20)
)
@settings(max_examples=60)
def test_the_last_lines_are_those_that_python_would_split(tmp_path_factory, parts, count):
    path = tmp_path_factory.mktemp("x") / "log"
    path.write_bytes(b"".join(parts))
    lines = b"".join(parts).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    reader = Reader(path, last=count)
    assert [x.text for x in (*reader.lines(), *reader.rest())] == (lines[-count:] if count else [])
    reader.close()


@pytest.mark.parametrize("gzip", [False, True])
def test_since_begins_with_the_line_printed_then(tmp_path, clock, gzip):
    log = writer(tmp_path, size=100, files=9, gzip=gzip)
    for _ in range(40):
        log.write(b"at %d\n" % clock.now)
        log.pack()
        clock.now += 10
    log.close()
    assert texts(Reader(tmp_path / "log", since=1200.0))[0] == "at 1200"
    assert texts(Reader(tmp_path / "log", since=1205.0))[0] == "at 1210"
    assert texts(Reader(tmp_path / "log", since=5000.0)) == []
    reader = Reader(tmp_path / "log", since=1300.0)
    assert [x.time for x in reader.lines()] == [1300.0 + 10 * n for n in range(10)]
    reader.close()


@pytest.mark.parametrize("gzip", [False, True])
def test_nothing_is_left_out_however_often_it_rotates_between_two_looks(tmp_path, gzip):
    log = writer(tmp_path, size=1000, files=8, gzip=gzip)
    numbered(log, 0, 10)
    reader = Reader(tmp_path / "log", last=0)
    assert list(reader.lines()) == []
    told = []
    for start in range(10, 3000, 500):  # each is several files
        numbered(log, start, start + 500)
        told += [x.text.decode() for x in reader.lines()]
    assert told == [f"line {number}" for number in range(10, 3010)]
    reader.close()


def test_a_line_is_given_when_its_end_has_come(tmp_path):
    log = writer(tmp_path, size=100)
    log.write(b"x" * 90 + b"begun ")  # the next goes to another file
    reader = Reader(tmp_path / "log", last=10)
    assert list(reader.lines()) == []
    log.write(b"and ended\n")
    assert [x.text for x in reader.lines()] == [b"x" * 90 + b"begun and ended"]
    log.write(b"name? ")
    assert list(reader.lines()) == []
    assert [(x.text, x.whole) for x in reader.rest()] == [(b"name? ", False)]
    reader.close()


def test_output_without_line_ends_needs_no_memory(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * (5 << 20))
    reader = Reader(tmp_path / "log")
    sizes = [len(x.text) for x in (*reader.lines(), *reader.rest())]
    assert sum(sizes) == 5 << 20
    assert max(sizes) <= 1 << 16
    reader.close()


def test_a_log_that_does_not_exist_yet_is_read_when_it_does(tmp_path):
    reader = Reader(tmp_path / "log", last=5)
    assert list(reader.lines()) == []
    (tmp_path / "log").write_bytes(b"now\n")
    assert [x.text for x in reader.lines()] == [b"now"]
    reader.close()


def test_a_log_that_somebody_empties_is_followed_from_its_beginning(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"before, and quite long\n")
    reader = Reader(path, last=0)
    assert list(reader.lines()) == []
    os.truncate(path, 0)
    path.write_bytes(b"after\n")
    assert [x.text for x in reader.lines()] == [b"after"]
    reader.close()
