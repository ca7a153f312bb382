"""What the VPN changed is on the disk, whole or not at all."""

from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vpn import changes
from apps.vpn.changes import ChangesError
from apps.vpn.killswitch import Policy
from apps.vpn.resolvconf import Before

POLICY = Policy(
    "tun7", 60917, "/h", (ip_network("192.0.2.0/24"),), (ip_network("2001:db8::/32"),), True, True
)


def test_what_is_saved_is_found_again_with_its_policy(tmp_path: Path) -> None:
    file = changes.place(tmp_path)
    made = msgspec.structs.replace(
        changes.of_policy(POLICY, ["beta", "fastest"], 7.5),
        resolv=Before(b"\xff\x00", None, 0o640, (1, 2), (3, 4)),
        valid_mark="0",
    )
    changes.save(file, made)
    found = changes.load(file)
    assert found == made
    assert found is not None
    assert found.policy("/h") == POLICY
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_file_nothing_was_changed(tmp_path: Path) -> None:
    assert changes.load(changes.place(tmp_path)) is None
    changes.remove(changes.place(tmp_path))


@given(st.binary(max_size=200))
def test_a_damaged_file_says_so_and_never_that_nothing_was_changed(junk: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vpn.json")
        file.write_bytes(junk)
        with pytest.raises(
            ChangesError, match=r"damaged .* remove .*vpn.json, then: viscript vpn off"
        ):
            changes.load(file)


def test_a_network_that_is_none_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "vpn.json"
    changes.save(file, changes.of_policy(POLICY, ["x"], 1.0))
    file.write_text(file.read_text().replace("192.0.2.0/24", "everything"))
    with pytest.raises(ChangesError, match="damaged"):
        changes.load(file)


def test_a_place_that_cannot_be_written_is_named_and_nothing_was_changed(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(ChangesError, match="nothing was changed"):
        changes.save(changes.place(tmp_path), changes.of_policy(POLICY, ["x"], 1.0))


def test_a_write_that_was_cut_short_leaves_the_old_file(tmp_path: Path) -> None:
    file = changes.place(tmp_path)
    old = changes.of_policy(POLICY, ["x"], 1.0)
    changes.save(file, old)
    file.with_name(f".{file.name}.new").write_bytes(b'{"exits": [')
    assert changes.load(file) == old
