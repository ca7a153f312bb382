"""The file that remembers the node manager."""

from pathlib import Path

import pytest

from bus.keystore import new_keypair
from nodes.pinning import PinError, pin, pinned


def test_a_key_is_remembered(tmp_path: Path) -> None:
    key, file = new_keypair().public, tmp_path / "node.manager"
    assert pinned(file) is None
    pin(file, key)
    assert pinned(file) == key
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", [b"", b"no key", b"\xff\xfe"])
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "node.manager"
    file.write_bytes(text)
    with pytest.raises(PinError, match=r"node\.manager"):
        pinned(file)


def test_where_nothing_can_be_written_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PinError, match="not-there"):
        pin(tmp_path / "not-there" / "node.manager", new_keypair().public)
