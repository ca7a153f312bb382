"""`viscript doctor` on file systems with little room."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.instance import Instance


@contextmanager
def disk(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "none", folder]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("options", "level", "says"),
    [
        ("size=30m", "broken", "state can soon not be written"),
        ("size=300m", "warning", "MiB free"),
        ("size=600m,nr_inodes=500", "warning", "files more are possible"),
        ("size=600m", "ok", "MiB free"),
    ],
)
def test_a_disk_with_little_room_is_named(tmp_path, options, level, says):
    with disk(tmp_path / "disk", options):
        made = Instance(tmp_path / "disk" / "h")
        told = json.loads(made.run("doctor", "--json", code=None).stdout)
        (found,) = [x for x in told["findings"] if x["check"] == "disk"]
        assert found["level"] == level
        assert says in found["text"]
        assert bool(found["todo"]) is (level != "ok")
