"""The log of a keeper: bounded, whole, with its times."""

import gzip
import os
import struct
from pathlib import Path

import pytest
from msgspec.structs import asdict

from viscript.keeping.log import RECORD, Log
from viscript.rules import LogRule


def made(folder: Path, **rule: float) -> Log:
    return Log(str(folder / "log"), asdict(LogRule(**rule)))


def printed(log: Log, data: bytes) -> None:
    """As a program prints: through a pipe."""
    source, target = os.pipe2(os.O_NONBLOCK)
    try:
        while data:
            data = data[os.write(target, data) :]
            while log.take(source):
                pass
    finally:
        os.close(source)
        os.close(target)


def stream(folder: Path) -> bytes:
    """All that is kept, from the oldest byte on."""
    found = b""
    for number in range(20, -1, -1):
        path = folder / (f"log.{number}" if number else "log")
        if path.exists():
            found += path.read_bytes()
        elif (packed := Path(f"{path}.gz")).exists():
            found += gzip.decompress(packed.read_bytes())
    return found


def test_files_are_bounded_and_no_byte_is_missing_between_them(tmp_path):
    log = made(tmp_path, size=1000, files=4)
    everything = b"".join(b"line %d\n" % number for number in range(1000))
    for start in range(0, len(everything), 70):
        printed(log, everything[start : start + 70])
    log.close()
    kept = stream(tmp_path)
    assert everything.endswith(kept)
    assert 3000 <= len(kept) <= 4000
    assert all(x.stat().st_size <= 1000 for x in tmp_path.glob("log*") if x.suffix != ".idx")


def test_a_file_ends_with_a_line_if_it_can(tmp_path):
    log = made(tmp_path, size=1000, files=4)
    for number in range(100):
        printed(log, b"line %d\n" % number)
    assert (tmp_path / "log.1").read_bytes().endswith(b"\n")
    log.write(b"x" * 5000)  # it cannot
    assert all(x.stat().st_size <= 1000 for x in tmp_path.glob("log*") if x.suffix != ".idx")


def test_what_was_put_aside_is_compressed(tmp_path):
    log = made(tmp_path, size=1000, files=4, gzip=True)
    everything = b"".join(b"line %d\n" % number for number in range(400))
    for start in range(0, len(everything), 50):
        printed(log, everything[start : start + 50])
        log.pack()
    log.close()
    assert everything.endswith(stream(tmp_path))
    assert (tmp_path / "log.1.gz").exists()
    assert not (tmp_path / "log.1").exists()
    assert not list(tmp_path.glob("*.new"))


def test_a_keeper_that_comes_after_a_killed_one_compresses_what_that_left(tmp_path):
    (tmp_path / "log.1").write_bytes(b"left\n")
    (tmp_path / "log.1.gz.new").write_bytes(b"half")
    made(tmp_path, gzip=True).close()
    assert stream(tmp_path) == b"left\n"
    assert sorted(x.name for x in tmp_path.iterdir()) == ["log", "log.1.gz", "log.idx"]


def test_one_file_is_kept_as_two_halves_so_that_something_is_left_when_it_is_full(tmp_path):
    log = made(tmp_path, size=1000, files=1)
    least = 1000
    for number in range(500):
        printed(log, b"line %d\n" % number)
        size = len(stream(tmp_path))
        assert size <= 1000
        least = min(least, size) if number > 200 else least
    log.close()
    assert least >= 350
    assert stream(tmp_path).endswith(b"line 499\n")
    assert {path.name for path in tmp_path.iterdir()} == {"log", "log.idx", "log.1", "log.1.idx"}


def test_all_files_together_are_within_the_total(tmp_path):
    log = made(tmp_path, size=1000, files=50, total=4000)
    for number in range(2000):
        printed(log, b"line %d\n" % number)
        assert sum(x.stat().st_size for x in tmp_path.iterdir()) <= 4000
    assert b"line 1999\n" in stream(tmp_path)


def test_an_old_file_is_put_aside_at_the_end_of_a_line(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("viscript.keeping.log.time.time", lambda: now[0])
    log = made(tmp_path, age=60)
    printed(log, b"one\n")
    now[0] += 61
    printed(log, b"two, begun ")
    now[0] += 61
    printed(log, b"and ended\n")
    printed(log, b"three\n")
    assert [(tmp_path / x).read_bytes() for x in ("log.2", "log.1", "log")] == [
        b"one\n", b"two, begun and ended\n", b"three\n",
    ]  # fmt: skip


def test_the_index_tells_when_what_was_written(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("viscript.keeping.log.time.time", lambda: now[0])
    log = made(tmp_path)
    printed(log, b"one\n")
    printed(log, b"two\n")  # within the same second
    now[0] = 1005.0
    printed(log, b"three\n")
    assert list(RECORD.iter_unpack((tmp_path / "log.idx").read_bytes())) == [
        (0, 1000.0), (8, 1005.0),
    ]  # fmt: skip


def test_a_clock_that_is_put_back_goes_on_from_there(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("viscript.keeping.log.time.time", lambda: now[0])
    log = made(tmp_path)
    printed(log, b"one\n")
    now[0] = 500.0
    printed(log, b"two\n")
    os.truncate(tmp_path / "log", 0)
    now[0] = 400.0
    printed(log, b"three\n")
    assert (tmp_path / "log").read_bytes() == b"three\n"
    assert [x for _, x in RECORD.iter_unpack((tmp_path / "log.idx").read_bytes())] == [
        1000.0,
        500.0,
        400.0,
    ]


def test_a_torn_index_is_made_whole(tmp_path):
    (tmp_path / "log.idx").write_bytes(struct.pack("<Qd", 0, 5.0) + b"torn")
    printed(made(tmp_path), b"x\n")
    assert (tmp_path / "log.idx").stat().st_size == 2 * RECORD.size


def test_a_log_that_somebody_has_emptied_goes_on_from_its_beginning(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("viscript.keeping.log.time.time", lambda: now[0])
    log = made(tmp_path)
    printed(log, b"before\n")
    os.truncate(tmp_path / "log", 0)
    now[0] += 2
    printed(log, b"after\n")
    assert (tmp_path / "log").read_bytes() == b"after\n"


@pytest.mark.parametrize("through_pipe", [True, False])
def test_a_full_disk_costs_lines_and_says_how_many(tmp_path, through_pipe):
    full = Path("/dev/full")
    log = made(tmp_path)
    log._fd, kept = os.open(full, os.O_RDWR), log._fd
    give = printed if through_pipe else lambda log, data: log.write(data)
    give(log, b"lost\n")
    assert log.dropped == 5
    os.close(log._fd)
    log._fd = kept
    give(log, b"kept\n")
    assert (tmp_path / "log").read_bytes() == (
        b"[viscript: 5 bytes of output were lost here: No space left on device]\nkept\n"
    )
