"""`viscript up` in the foreground."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bus import keystore
from bus.identity import to_hex
from tests.support.instance import APPS, alive, belongs, instance, until


def up_in_the_foreground(made, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "viscript.cli", "up", *options]
    return subprocess.Popen(
        command, env=made.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_output_is_shown_and_ctrl_c_takes_everything_down(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure({"chatty": {**APPS["chatty"], "autostart": True}})
        process = up_in_the_foreground(made)
        until(lambda: made.run("status", code=None).returncode == 0)
        until(lambda: [x["state"] for x in made.ask("la")] == ["running"])
        pid = made.ask("la")[0]["pid"]
        until(lambda: "line 30" in made.run("logs", "chatty", code=None).stdout)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "chatty (ID 1) running" in out
        assert "chatty | line 1\nchatty | line 2\n" in out
        assert "down: everything has ended" in out
        assert not alive(pid)
        made.run("status", code=3)


def test_it_stays_while_the_daemon_is_restarted(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        process = up_in_the_foreground(made)
        until(lambda: made.run("status", code=None).returncode == 0)
        made.run("daemon", "restart")
        made.run("start", "chatty")
        until(lambda: "line 5" in made.run("logs", "chatty").stdout)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert "chatty | line 1\nchatty | line 2\n" in out
        assert "down: everything has ended" in out


def test_its_events_can_be_read_as_json_lines(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        process = up_in_the_foreground(made, "--json")
        until(lambda: made.run("status", code=None).returncode == 0)
        until(lambda: [x["state"] for x in made.ask("la")] == ["running"])
        made.run("down")
        out, _ = process.communicate(timeout=30)
        events = [json.loads(line) for line in out.splitlines()]
        assert {"broker", "launch", "up"} <= {x["kind"] for x in events}
        assert events[-1]["launch"]["state"] == "exited"


def test_detached_up_answers_with_a_document(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        told = made.ask("up", "--detach")
        assert told["daemon"]["pid"] == made.daemon_pid()
        assert told["broker"]["endpoint"].startswith("tcp://127.0.0.1:")
        assert [x["app"] for x in told["launches"]] == ["sleeper"]
        assert told["problems"] == {}


def test_the_daemon_is_shown_as_what_it_is_and_not_as_the_command_that_began_it(tmp_path):
    with instance(tmp_path / "h") as made:
        process = Path(f"/proc/{made.daemon_pid()}")
        words = process.joinpath("cmdline").read_text().rstrip("\0").split("\0")
        assert words[0] == "viscript.daemon"
        assert "up" not in words
        assert process.joinpath("comm").read_text() == "viscript-daemon\n"


def running(made) -> list[str]:
    """The command lines of all processes of this instance."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [
        Path(f"/proc/{pid}/cmdline").read_text()
        for pid in numbers
        if alive(pid) and belongs(pid, made.root)
    ]


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.45, 0.6])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_stays_when_it_is_interrupted_early(tmp_path, number, seconds):
    with instance(tmp_path / "h", up=False) as made:
        process = up_in_the_foreground(made)
        time.sleep(seconds)
        process.send_signal(number)
        _, err = process.communicate(timeout=40)
        assert "error: " not in err
        assert running(made) == []


def test_nothing_stays_when_nobody_reads_it_any_more(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        process = up_in_the_foreground(made, "--json")
        process.stdout.close()
        assert process.wait(timeout=40) == 141
        assert process.stderr.read() == ""
        process.stderr.close()
        assert running(made) == []


def test_a_terminal_that_is_closed_takes_everything_down_unless_nohup_says_otherwise(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        process = up_in_the_foreground(made)
        until(lambda: made.run("status", code=None).returncode == 0)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=40)
        assert process.returncode == 0
        assert running(made) == []
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            process = up_in_the_foreground(made)
        finally:
            signal.signal(signal.SIGHUP, before)
        until(lambda: made.run("status", code=None).returncode == 0)
        process.send_signal(signal.SIGHUP)
        made.run("down")
        out, _ = process.communicate(timeout=40)
        assert "stopping everything" not in out


def test_ctrl_c_counts_when_the_reader_has_ended_by_it_too(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        process = up_in_the_foreground(made)
        until(lambda: made.run("status", code=None).returncode == 0)
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=40) == 141
        assert process.stderr.read() == ""
        process.stderr.close()
        assert running(made) == []


def test_down_waits_for_a_daemon_that_is_just_starting(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        process = up_in_the_foreground(made)
        until((made.root / "daemon.lock").exists)
        until(lambda: made.run("down", code=None).returncode == 0)
        process.communicate(timeout=40)
        assert running(made) == []


def test_in_a_home_the_everyday_key_decides_about_nobody(tmp_path):
    with instance(tmp_path / "h") as home:
        assert {k.stat().st_mode & 0o777 for k in (home.root / "keys").glob("*.key")} == {0o600}
        assert "$SYS.access.list" in home.run("bus", "req", "$SYS.access.list", code=4).stderr
        roles = {one["name"]: one["roles"] for one in home.ask("bus", "keys", "list")}
        assert roles["cli"] == ["operator"]
        assert {name for name in roles if "admin" in roles[name]} == {"viscript", "admin"}


def test_an_admin_key_that_was_copied_is_forbidden_and_replaced_at_the_next_up(tmp_path):
    with instance(tmp_path / "h") as home:
        file = home.root / "keys" / "admin.key"
        copied = keystore.load(file).public
        home.run("bus", "keys", "forbid", to_hex(copied), code=6)  # it cuts itself off
        file.unlink()
        home.run("down")
        home.run("up", "--detach")
        admins = [one["key"] for one in home.ask("bus", "keys", "list") if one["name"] == "admin"]
        assert admins == [keystore.load(file).public]
        assert copied not in admins
