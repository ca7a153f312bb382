"""resolv.conf is taken over and put back exactly, whatever it was."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from apps.vpn import resolvconf
from apps.vpn.resolvconf import Before

RESOLVERS = [ip_address("10.66.0.1"), ip_address("fd66::1")]
OLD = b"# by hand\nsearch example.org\nnameserver 192.0.2.1\noptions edns0\n"


def state(file: Path) -> object:
    if not os.path.lexists(file):
        return None
    found = file.lstat()
    inside = file.readlink() if file.is_symlink() else file.read_bytes()
    return inside, found.st_mode, found.st_mtime_ns


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "resolv.conf"


def make(file: Path, kind: str) -> None:
    if kind == "file":
        file.write_bytes(OLD)
        file.chmod(0o640)
        os.utime(file, ns=(1_000_000_007, 2_000_000_009))
    elif kind == "link":
        (file.parent / "target").write_bytes(OLD)
        file.symlink_to("target")
    elif kind == "dangling":
        file.symlink_to("/run/nowhere/resolv.conf")


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "nothing"])
def test_it_is_put_back_as_it_was(file: Path, kind: str) -> None:
    make(file, kind)
    before, held = state(file), resolvconf.read(file)
    resolvconf.write(RESOLVERS, held, file)
    assert resolvconf.is_ours(file)
    assert b"nameserver 10.66.0.1\nnameserver fd66::1\n" in file.read_bytes()
    assert resolvconf.put_back(held, file)
    after = state(file)
    if kind in {"link", "dangling"}:  # a new link has its own time
        assert isinstance(before, tuple)
        assert isinstance(after, tuple)
        assert before[:2] == after[:2]
        assert not (file.parent / "target").exists() or (file.parent / "target").read_bytes() == OLD
    else:
        assert after == before


def test_search_and_options_are_kept_and_other_resolvers_are_not(file: Path) -> None:
    make(file, "file")
    text = resolvconf.text(RESOLVERS, resolvconf.read(file))
    assert text.splitlines()[1:] == [
        "nameserver 10.66.0.1", "nameserver fd66::1", "search example.org", "options edns0"
    ]  # fmt: skip


def test_a_file_that_cannot_be_replaced_is_written_in_place(file: Path) -> None:
    make(file, "file")
    inode = file.stat().st_ino
    held = resolvconf.read(file)
    resolvconf.write(RESOLVERS, held, file)
    assert file.stat().st_ino == inode
    resolvconf.put_back(held, file)
    assert file.stat().st_ino == inode


def test_what_somebody_else_wrote_since_stays(file: Path) -> None:
    make(file, "file")
    held = resolvconf.read(file)
    resolvconf.write(RESOLVERS, held, file)
    file.write_text("nameserver 192.0.2.9\n")
    assert not resolvconf.put_back(held, file)
    assert file.read_text() == "nameserver 192.0.2.9\n"


def test_the_same_again_is_not_written(file: Path) -> None:
    make(file, "file")
    held = resolvconf.read(file)
    resolvconf.write(RESOLVERS, held, file)
    written = file.stat().st_mtime_ns
    resolvconf.write(RESOLVERS, held, file)
    assert file.stat().st_mtime_ns == written


def test_without_systemd_resolved_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvconf, "_RESOLVED", Path("/nowhere"))
    assert resolvconf.tell_resolved("tun7", RESOLVERS) == ""


@pytest.fixture
def resolvectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that writes down what it is asked, and fails for the device `bad`."""
    program = tmp_path / "resolvectl"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n[ "$2" != bad ] || {{ echo no link >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(resolvconf, "_RESOLVED", tmp_path)
    return tmp_path / "asked"


def test_systemd_resolved_asks_for_all_names_in_the_tunnel(resolvectl: Path) -> None:
    assert resolvconf.tell_resolved("tun7", RESOLVERS) == ""
    assert resolvectl.read_text().splitlines() == [
        "dns tun7 10.66.0.1 fd66::1", "domain tun7 ~.", "default-route tun7 yes"
    ]  # fmt: skip


def test_what_systemd_resolved_refuses_is_told(resolvectl: Path) -> None:
    assert resolvconf.tell_resolved("bad", RESOLVERS) == "resolvectl dns: no link"
    assert len(resolvectl.read_text().splitlines()) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "resolv.conf"
    folder.mkdir()
    with pytest.raises(resolvconf.ResolvError, match=f"{folder}: Is a directory"):
        resolvconf.read(folder)
    with pytest.raises(resolvconf.ResolvError, match=str(folder)):
        resolvconf.write(RESOLVERS, Before(), folder)
