from pathlib import Path

import pytest

from apps.socks.users import UserFileError, read_users


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "users"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_names_and_passwords_are_read(tmp_path: Path):
    path = written(tmp_path, "# who may\n\nann:secret\nbob:with:colon \n")
    assert read_users(path) == {b"ann": b"secret", b"bob": b"with:colon "}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused_with_the_way_out(tmp_path: Path, mode: int):
    with pytest.raises(UserFileError, match="chmod 600"):
        read_users(written(tmp_path, "ann:secret\n", mode))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserFileError, match="users: No such file"):
        read_users(tmp_path / "users")


@pytest.mark.parametrize("line", ["secret", ":secret", "ann:", "ann:" + "x" * 256])
def test_a_line_that_cannot_be_read_is_numbered_and_not_quoted(tmp_path: Path, line: str):
    with pytest.raises(UserFileError, match="users:2") as caught:
        read_users(written(tmp_path, f"# first\n{line}\n"))
    assert "secret" not in str(caught.value)


def test_the_same_name_twice_and_no_name_at_all(tmp_path: Path):
    with pytest.raises(UserFileError, match=r"users:2.*same name"):
        read_users(written(tmp_path, "ann:a\nann:b\n"))
    with pytest.raises(UserFileError, match="no users"):
        read_users(written(tmp_path, "# nobody\n"))
