"""Everything as a user who is not root, in a home that this user cannot write at last."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.instance import Instance, alive, until

UID = 12345
# It may read whatever root may, as the interpreter may be below the folder of root; it may do nothing else.
AS_USER = [
    "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
]  # fmt: skip
APPS = {
    "sleeper": {"path": "sleep", "args": ["1000"], "autostart": True},
    "who": {"path": "sh", "args": ["-c", "id -u; exec sleep 1000"]},
    "other": {"path": "id", "user": "nobody"},
    "citizen": {
        "path": "sh",
        "args": ["-c", f"exec {sys.executable} citizen.py"],
        "cwd": ".",
        "ready": "bus",
    },
}


class Users(Instance):
    def run(self, *arguments: str, code: int | None = 0, **more) -> subprocess.CompletedProcess:
        command = [*AS_USER, sys.executable, "-P", "-m", "viscript.cli", *arguments]
        done = subprocess.run(
            command, env={**self.environment, "HOME": str(self.root)}, capture_output=True, text=True,
            timeout=50, check=False, **more,
        )  # fmt: skip
        assert code is None or done.returncode == code, (arguments, done, self.daemon_log())
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def made():
    with tempfile.TemporaryDirectory() as folder:  # its parents are open to others
        Path(folder).chmod(0o755)
        users = Users(Path(folder) / "h")
        users.configure(APPS)
        for path in (users.root, *users.root.iterdir()):
            shutil.chown(path, UID, UID)
        try:
            yield users
        finally:
            for path in (users.root, *users.root.rglob("*/")):
                path.chmod(0o700)
            users.clean_up()


def test_a_user_has_programs_that_outlive_daemon_and_keeper(made):
    made.run("up", "--detach")
    launch = made.start("who")
    until(lambda: made.run("logs", "who").stdout == f"{UID}\n")
    assert made.start("citizen")["state"] == "running"
    keeper = made.root / "launches" / str(launch["id"]) / "state.json"
    before = keeper.read_text()
    made.kill_daemon()
    os.kill(made_by(before), signal.SIGKILL)
    made.run("up", "--detach")
    assert [x["pid"] for x in made.ask("la") if x["app"] == "who"] == [launch["pid"]]
    until(lambda: made_by(keeper.read_text()) != made_by(before))
    assert "only a daemon of root can run it as nobody" in made.run("start", "other", code=8).stderr
    made.run("down")
    assert not alive(launch["pid"])


def made_by(state: str) -> int:
    return int(json.loads(state)["keeper_pid"])


def test_folders_that_cannot_be_written_cost_new_programs_and_nothing_that_runs(made):
    made.run("up", "--detach")
    [sleeper] = made.ask("la")
    log = made.root / "logs"
    log.chmod(0o500)
    assert f"{log}/2-who.log: Permission denied" in made.run("start", "who", code=1).stderr
    for name in ("state", "launches"):
        (made.root / name).chmod(0o500)
    refused = made.run("start", "who", code=1).stderr
    assert "launches/3: cannot be made: Permission denied" in refused
    assert made.ask("la")[0]["pid"] == sleeper["pid"]
    made.root.chmod(0o500)
    made.run("down")
    assert not alive(sleeper["pid"])
    assert f"chmod 700 {made.root}" in made.run("up", "--detach", code=4).stderr
    assert made.run("doctor", code=2).stdout.count("cannot be written") == 4
    for path in (made.root, *made.root.glob("*/")):
        path.chmod(0o700)
    made.run("up", "--detach")
    assert [x["app"] for x in made.ask("la") if x["state"] == "running"] == ["sleeper"]
