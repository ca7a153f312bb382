"""Programs that run as another user; only root can start these."""

import grp
import json
import os
import pwd
import signal
from pathlib import Path

import pytest

from tests.support.instance import instance, until

SCRIPT = "id -u; id -g; id -G; echo $USER $HOME; echo reopened > /dev/stdout; exec sleep 1000"


@pytest.fixture
def made(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        entry = {"path": "/bin/sh", "args": ["-c", SCRIPT], "cwd": "/"}
        made.configure({
            "theirs": {**entry, "user": "nobody"},
            "grouped": {**entry, "user": "nobody", "group": "daemon"},
            "unknown": {**entry, "user": "no-such-user"},
        })  # fmt: skip
        made.run("up", "--detach")
        yield made


def test_a_program_is_its_user_in_every_respect(made):
    nobody = pwd.getpwnam("nobody")
    number = str(made.start("theirs")["id"])
    until(lambda: "reopened" in made.run("logs", number).stdout)
    uid, gid = nobody.pw_uid, nobody.pw_gid
    groups = os.getgrouplist("nobody", gid)
    told = made.run("logs", number).stdout.splitlines()[:4]
    assert told == [str(uid), str(gid), " ".join(map(str, groups)), f"nobody {nobody.pw_dir}"]
    pid = made.launch(int(number))["pid"]
    made.run("sd", number)  # its keeper is root's, so it may
    assert not Path(f"/proc/{pid}").exists()
    number = str(made.start("grouped")["id"])
    until(lambda: "reopened" in made.run("logs", number).stdout)
    other = grp.getgrnam("daemon").gr_gid
    assert made.run("logs", number).stdout.splitlines()[:2] == [str(uid), str(other)]


def test_a_user_that_does_not_exist_is_told(made):
    assert "there is no user 'no-such-user'" in made.run("start", "unknown", code=8).stderr


def test_a_killed_keeper_of_another_users_program_is_replaced(made):
    launch = made.start("theirs")
    number = str(launch["id"])
    state = made.root / "launches" / number / "state.json"
    old = json.loads(state.read_text())["keeper_pid"]
    os.kill(old, signal.SIGKILL)
    until(lambda: json.loads(state.read_text())["keeper_pid"] != old)
    assert made.launch(launch["id"])["pid"] == launch["pid"]
    made.run("sd", number)
