"""A store that is damaged anywhere and anyhow: a repair ends, and accounts for every record."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.topics import salvage, schema, scrub, wal
from bus.topics.repair import Report, repair
from bus.topics.schema import StoreError
from tests.support.accounts import contents, stored, unaccounted, whole
from tests.support.stored import crashed

PAGE = schema.PAGE


class Sound:
    """The file of a small store that was closed; file and log of one that was killed."""

    def __init__(self, closed: Path, killed: Path) -> None:
        self.closed = closed.read_bytes()
        self.killed = killed.read_bytes()
        self.log = wal.log_of(killed).read_bytes()

    def __repr__(self) -> str:  # not all of it
        return "Sound()"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    path = tmp_path_factory.mktemp("sound") / "topics.db"
    return Sound(path, crashed(path, 25))


# Half of the time in the first pages, and often in the head of one.
PLACES = st.one_of(
    st.integers(0, 7 * PAGE - 1),
    st.integers(0, 1 << 24),
    st.builds(lambda page, at: page * PAGE + at, st.integers(0, 15), st.integers(0, 11)),
)
HARMS = st.lists(
    st.tuples(
        PLACES, st.one_of(st.sampled_from([1 << n for n in range(8)]), st.binary(min_size=1))
    ),
    min_size=1,
    max_size=3,
)


def harmed(good: bytes, harms: list[tuple[int, int | bytes]]) -> bytes:
    """Bits flipped and spans written over; a span is repeated for as long as its first byte says."""
    raw = bytearray(good)
    for place, harm in harms:
        at = place % len(raw)
        if isinstance(harm, int):
            raw[at] ^= harm
        else:
            span = (harm * (harm[0] * 16 // len(harm) + 1))[: len(raw) - at]
            raw[at : at + len(span)] = span
    return bytes(raw)


def attempt(path: Path) -> Report | StoreError | None:
    try:
        return repair(path, "now")
    except StoreError as error:
        return error


def repaired(path: Path, good: bytes, damaged: bytes) -> None:
    """Repair what was damaged, and see to it that all is accounted for."""
    path.write_bytes(damaged)
    report = attempt(path)
    if isinstance(report, StoreError):
        assert path.read_bytes() == damaged
        assert str(report).startswith(f"{path}: ")
        assert "version" in str(report) or whole(good, damaged) == set()
        return
    scrub.open_checked(path).close()
    if report is None:
        assert contents(path)[0] == stored(good)
    else:
        assert unaccounted(good, damaged, report, path) == set()


@settings(deadline=None, max_examples=50)
@given(harms=HARMS)
def test_whatever_is_damaged_a_repair_ends_and_accounts_for_every_record(
    sound: Sound, harms: list[tuple[int, int | bytes]]
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(salvage, "SOME", 256)  # it is the time that it takes
        repaired(Path(folder) / "topics.db", sound.closed, harmed(sound.closed, harms))


def test_wherever_it_is_cut_a_repair_ends_and_accounts_for_every_record(
    sound: Sound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "SOME", 256)
    path = tmp_path / "topics.db"
    for length in range(0, len(sound.closed), PAGE):
        repaired(path, sound.closed, sound.closed[:length])
        for file in tmp_path.iterdir():
            file.unlink()


@settings(deadline=None, max_examples=30)
@given(harms=HARMS, log_harms=HARMS, cut=st.integers(0, 9))
def test_whatever_is_damaged_of_a_database_and_its_log_a_repair_ends_with_a_sound_one(
    sound: Sound,
    harms: list[tuple[int, int | bytes]],
    log_harms: list[tuple[int, int | bytes]],
    cut: int,
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(salvage, "SOME", 256)
        path = Path(folder) / "topics.db"
        path.write_bytes(harmed(sound.killed, harms)[: cut * PAGE])
        wal.log_of(path).write_bytes(harmed(sound.log, log_harms))
        report = attempt(path)
        if isinstance(report, StoreError):
            assert "version" in str(report) or "nothing is left" in str(report)
        else:
            scrub.open_checked(path).close()
