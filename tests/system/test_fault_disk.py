"""A home that is full, or cannot be written: what runs goes on, and what cannot be done is said."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.instance import alive, instance, until

APPS = {
    "sleeper": {"path": "sleep", "args": ["1000"]},
    "filler": {"path": "sh", "args": ["-c", "cat /dev/zero >\"$VISCRIPT_HOME/much\"; echo full; exit 3"]},
}  # fmt: skip


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", folder], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_ends_nothing_and_is_over_when_there_is_room(tmp_path):
    folder = tmp_path / "disk"
    with disk(folder, "12m"), instance(folder / "h", up=False) as made:
        made.configure(APPS)
        made.run("up", "--detach")
        pid = made.start("sleeper")["pid"]
        made.run("start", "filler", code=None)
        much = made.root / "much"
        until(lambda: much.exists() and not any(x["app"] == "filler" for x in _running(made)))
        assert alive(pid)
        assert [x["pid"] for x in _running(made) if x["app"] == "sleeper"] == [pid]
        done = made.run("start", "sleeper", code=None)
        assert "Traceback" not in done.stderr
        much.unlink()
        until(lambda: made.run("start", "sleeper", code=None).returncode == 0)
        made.run("sd", "app=sleeper", "--yes")
        assert not alive(pid)


def _running(made) -> list[dict]:
    return [x for x in made.ask("la") if x["state"] == "running"]


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    folder = tmp_path / "disk"
    with disk(folder, "8m"), instance(folder / "h", up=False) as made:
        made.configure(APPS)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        done = made.run("up", "--detach", code=None)
        assert done.returncode in {1, 4}, done
        assert str(made.root) in done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        made.run("up", "--detach")
