"""Keys and access lists on disk: private, whole, and refused with the way out when they are not."""

import json
import os
from pathlib import Path

import pytest

from bus import keystore
from bus.access import AccessError, AccessList
from bus.errors import KeyFileError
from bus.identity import KeyPair
from bus.keystore import AccessFile
from bus.signals import AccessEntry


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_key_file_is_private_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    old = os.umask(0)
    try:
        made = keystore.create(path)
    finally:
        os.umask(old)
    assert mode(path) == 0o600
    assert keystore.load(path) == made
    assert json.loads(path.read_text()) == {"public": made.public, "secret": made.secret}


def test_an_existing_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    made = keystore.create(path)
    with pytest.raises(FileExistsError):
        keystore.create(path)
    assert keystore.load(path) == made


def full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_no_key_file_and_the_next_try_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.key"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            keystore.load_or_create(path)
    assert list(tmp_path.iterdir()) == []
    assert keystore.load_or_create(path) == keystore.load(path)


def test_a_key_file_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.key"
    seen = []

    def synced(descriptor: int) -> None:
        seen.append((path.exists(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", synced)
    keystore.create(path)
    [before, after] = seen  # the file's own, then its folder's
    assert before == (False, path.stat().st_size)
    assert after[0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.key"]


def test_who_is_second_to_create_a_key_loads_the_firsts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.key"
    made = []

    def too_late() -> KeyPair:
        monkeypatch.undo()
        made.append(keystore.create(path))
        return keystore.new_keypair()

    monkeypatch.setattr(keystore, "new_keypair", too_late)
    assert [keystore.load_or_create(path)] == made


def test_load_or_create_makes_a_private_folder_and_then_loads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.key"
    made = keystore.load_or_create(path)
    assert mode(path.parent) == 0o700
    assert keystore.load_or_create(path) == made


@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o620, 0o601])
def test_a_key_file_that_others_can_reach_is_refused_with_the_command(
    tmp_path: Path, wrong: int
) -> None:
    path = tmp_path / "a.key"
    keystore.create(path)
    path.chmod(wrong)
    with pytest.raises(KeyFileError, match=rf"mode {wrong:04o}\); run: chmod 600 {path}"):
        keystore.load(path)


def halves(public: str, secret: str) -> bytes:
    return json.dumps({"public": public, "secret": secret}).encode()


@pytest.mark.parametrize(
    "text",
    [b"", b"garbage", b"\xff\x00", b"[]", b"{}", b'{"public": 1, "secret": 2}', b"[" * 100_000,
     halves("a" * 40, "b" * 40), halves("", ""), halves("a" * 40, "~" * 40), halves("a" * 39, "b" * 41)],
)  # fmt: skip
def test_what_is_no_key_file_is_refused_with_its_path(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a key file") as caught:
        keystore.load(path)
    assert str(path) in str(caught.value)


def test_the_halves_of_two_pairs_are_no_pair(tmp_path: Path) -> None:
    one, two = keystore.create(tmp_path / "1"), keystore.create(tmp_path / "2")
    path = tmp_path / "3"
    path.write_bytes(halves(one.public, two.secret))
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        keystore.load(path)
    assert two.secret not in str(caught.value)


def test_a_missing_key_file_and_a_folder_in_its_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no such file"):
        keystore.load(tmp_path / "a.key")
    with pytest.raises(KeyFileError, match="cannot be read"):
        keystore.load(tmp_path)


def some_list() -> AccessList:
    return AccessList([AccessEntry("0" * 40, "x", ["app"])])


def test_an_access_list_is_private_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    keystore.save_access(path, some_list())
    assert mode(path) == 0o600
    assert keystore.load_access(path).entries == some_list().entries
    assert [p.name for p in tmp_path.iterdir()] == ["access.json"]


def test_a_save_that_fails_leaves_the_old_list_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.json"
    keystore.save_access(path, some_list())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        keystore.save_access(path, AccessList())
    assert keystore.load_access(path).entries == some_list().entries
    assert [p.name for p in tmp_path.iterdir()] == ["access.json"]


def test_a_list_that_could_not_be_read_back_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.json"
    keystore.save_access(path, AccessList())
    monkeypatch.setattr(keystore, "_MAX_FILE", 100)
    with pytest.raises(AccessError, match="at most 100"):
        keystore.save_access(path, some_list())
    assert keystore.load_access(path).entries == []


@pytest.mark.parametrize("text", [b"", b"{", b'{"keys": [{"key": "x", "name": "", "roles": []}]}'])
def test_a_broken_access_list_names_its_file(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "access.json"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(AccessError) as caught:
        keystore.load_access(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_access_list_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    keystore.save_access(path, some_list())
    path.chmod(0o666)
    with pytest.raises(AccessError, match="chmod 600"):
        keystore.load_access(path)


def lists(*names: str) -> AccessList:
    return AccessList([AccessEntry(name * 40, name, ["app"]) for name in names])


def test_what_another_program_wrote_is_never_overwritten_unread(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    keystore.save_access(path, lists("1"))
    file = AccessFile(path, patience=1)
    assert file.load().entries == lists("1").entries
    file.save(lists("1", "2"))
    keystore.save_access(path, lists("3"))  # 1 is forbidden meanwhile
    with pytest.raises(AccessError, match="changed by another program"):
        file.save(lists("1", "2", "4"))
    assert file.load().entries == lists("3").entries
    file.save(lists("3", "4"))
    assert keystore.load_access(path).entries == lists("3", "4").entries


def test_a_list_that_was_taken_away_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    keystore.save_access(path, lists("1"))
    file = AccessFile(path, patience=1)
    file.load()
    path.unlink()
    with pytest.raises(AccessError):
        file.save(lists("1"))
    assert not path.exists()


def test_what_is_not_to_last_yet_waits_for_no_disk_and_is_made_anew_when_a_power_cut_has_emptied_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.key"
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    made = keystore.load_or_create(path, lasting=False)
    assert not synced
    keystore.make_lasting([path, tmp_path / "gone meanwhile"])
    assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]
    assert keystore.load_or_create(path, lasting=False) == made
    path.write_bytes(b"")
    with pytest.raises(KeyFileError, match="not a key file"):
        keystore.load_or_create(path)
    assert keystore.load_or_create(path, lasting=False) != made
