"""The enrolment file: private, whole, read again when it has changed, never changed by two at once."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from bus import keystore
from bus.access import AccessError
from bus.doorkeeper import Doorkeeper
from bus.enrolment import Door
from bus.signals import Opening, TokenQuery

TOKEN = "t" * 43
NOW = 1.7e9


def keeper(folder: Path, patience: float = 5.0) -> Doorkeeper:
    return Doorkeeper(folder / "enrolment.json", patience=patience)


def opened(door: Door) -> Door:
    return door.opened(Opening(60), NOW)


def with_token(door: Door) -> Door:
    return door.with_token(TOKEN, TokenQuery(["app"]), NOW)[0]


def test_without_a_file_the_door_is_closed(tmp_path: Path) -> None:
    assert keeper(tmp_path).read() == Door()
    assert list(tmp_path.iterdir()) == []


def test_what_one_changes_another_reads(tmp_path: Path) -> None:
    one, other = keeper(tmp_path), keeper(tmp_path)
    other.read()
    one.change(with_token)
    assert other.read() == one.read() == with_token(Door())
    other.change(opened)
    assert one.read() == opened(with_token(Door()))


def test_a_file_that_is_taken_away_closes_the_door(tmp_path: Path) -> None:
    one = keeper(tmp_path)
    one.change(opened)
    (tmp_path / "enrolment.json").unlink()
    assert one.read() == Door()


def test_the_file_is_private_and_holds_no_token(tmp_path: Path) -> None:
    keeper(tmp_path).change(with_token)
    path = tmp_path / "enrolment.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["enrolment.json"]


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = keeper(tmp_path)
    one.change(with_token)
    found = one.read()
    monkeypatch.setattr("bus.keystore.read_private", None)
    assert one.read() is found


@pytest.mark.parametrize("text", [b"", b"{", b'{"tokens": [1]}', b'{"opened": 1}'])
def test_a_broken_file_names_itself_and_is_not_overwritten(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "enrolment.json"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(AccessError, match=f"^{path}: "):
        keeper(tmp_path).read()
    with pytest.raises(AccessError):
        keeper(tmp_path).change(opened)
    assert path.read_bytes() == text


def test_a_file_that_others_can_write_is_refused_with_the_command(tmp_path: Path) -> None:
    one = keeper(tmp_path)
    one.change(opened)
    (tmp_path / "enrolment.json").chmod(0o666)
    with pytest.raises(AccessError, match="chmod 600"):
        keeper(tmp_path).read()


def test_a_change_that_is_given_up_or_fails_leaves_the_door_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = keeper(tmp_path)
    one.change(with_token)

    def gives_up(_door: Door) -> Door:
        raise LookupError

    with pytest.raises(LookupError):
        one.change(gives_up)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        one.change(opened)
    assert one.read() == keeper(tmp_path).read() == with_token(Door())
    assert [p.name for p in tmp_path.iterdir()] == ["enrolment.json"]


def test_a_folder_that_somebody_holds_is_waited_for_not_longer_than_patience(
    tmp_path: Path,
) -> None:
    holder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(OSError, match="another program is changing it"):
            keeper(tmp_path, patience=0.05).change(opened)
        assert time.monotonic() - start < 5
    finally:
        os.close(holder)
    keeper(tmp_path, patience=0.05).change(opened)


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(LookupError), keystore.locked(tmp_path, 0):
        raise LookupError
    with keystore.locked(tmp_path, 0):
        pass
