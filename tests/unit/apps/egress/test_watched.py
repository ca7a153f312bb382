from pathlib import Path

import pytest

from apps.egress import watched
from apps.egress.hostnames import read_servers
from apps.egress.watched import Watched


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LOOK_EVERY", 0)


def test_a_file_is_read_again_when_it_has_changed_and_only_then(tmp_path: Path):
    texts: list[str] = []
    file = tmp_path / "resolv.conf"
    file.write_text("one")
    watching = Watched(file, lambda text: texts.append(text) or len(texts))
    assert watching.value() == watching.value() == 2
    file.write_text("other")
    assert watching.value() == 3
    file.unlink()
    assert watching.value() == watching.value() == 4
    assert texts == ["", "one", "other", ""]


def test_between_two_looks_the_file_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watched, "LOOK_EVERY", 3600)
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1")
    watching = Watched(file, read_servers)
    assert watching.value() == ["192.0.2.1"]
    file.write_text("nameserver 192.0.2.22")
    assert watching.value() == ["192.0.2.1"]


def test_a_file_that_is_not_there_names_this_machine(tmp_path: Path):
    assert Watched(tmp_path / "none", read_servers).value() == ["127.0.0.1"]
