"""What is around us is not as it should be: records that lie, clocks, masks, terminals, locales."""

import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance, alive, instance, until

APPS = {
    "sleeper": {"path": "sleep", "args": ["1000"]},
    "umlaut": {
        "path": "sh",
        "args": ["-c", "echo 'grüße ☃'; umask; sleep 1000"],
        "desc": "Grüße ☃",
    },
}


@contextmanager
def bystander() -> Iterator[subprocess.Popen]:
    """A process that is none of our business."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def state_of(made: Instance, number: int) -> Path:
    return made.root / "launches" / str(number) / "state.json"


def left_behind(made: Instance, number: int, **lies: object) -> None:
    """Daemon, keeper and program are killed; the record that is left says something else."""
    file = state_of(made, number)
    report = json.loads(file.read_text())
    made.kill_daemon()
    for pid in (report["keeper_pid"], report["pid"]):
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not alive(pid))
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": "running", **lies}))


@pytest.fixture
def made(tmp_path: Path):
    with instance(tmp_path / "h", up=False) as found:
        found.configure(APPS)
        found.run("up", "--detach")
        yield found


@pytest.mark.parametrize("lie", ["reused pid", "other boot"])
def test_a_process_that_is_not_proven_to_be_ours_hears_no_signal(made: Instance, lie: str):
    number = made.start("sleeper")["id"]
    with bystander() as other:
        lies: dict[str, object] = {"pid": other.pid, "left": [other.pid]}
        if lie == "other boot":
            lies |= {"start_ticks": ticks(other.pid), "boot_id": "another-boot"}
        left_behind(made, number, **lies)
        made.run("up", "--detach", code=None)
        assert made.launch(number)["state"] not in {"running", "starting"}
        made.run("down")
        assert other.poll() is None


def left_alone(made: Instance) -> tuple[dict[str, Any], Path]:
    """An app that runs with neither daemon nor keeper, and the file that tells of it."""
    made.configure({"web": {**APPS["sleeper"], "autostart": True, "restart": "always"}})
    made.run("up", "--detach")
    [launch] = made.ask("la")
    file = state_of(made, launch["id"])
    made.kill_daemon()
    keeper = json.loads(file.read_text())["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not alive(keeper))
    return launch, file


@pytest.mark.parametrize("damage", ["rubbish", "no file"])
def test_what_runs_with_a_damaged_record_is_known_by_its_mark(tmp_path: Path, damage: str):
    with instance(tmp_path / "h", up=False) as made:
        launch, file = left_alone(made)
        if damage == "rubbish":
            file.write_text("rubbish")
        else:
            file.unlink()
        made.run("up", "--detach")
        until(lambda: made.launch(launch["id"])["state"] == "running")
        assert made.launch(launch["id"])["pid"] == launch["pid"]
        os.kill(launch["pid"], signal.SIGKILL)
        until(lambda: made.launch(launch["id"])["restarts"] == 1)
        made.run("wait", str(launch["id"]))
        assert alive(made.launch(launch["id"])["pid"])


def test_what_runs_without_a_record_is_not_started_a_second_time(tmp_path: Path):
    with instance(tmp_path / "h", up=False) as made:
        launch, file = left_alone(made)
        shutil.rmtree(file.parent)
        made.run("up", "--detach", code=None)
        until(lambda: made.launch(launch["id"])["state"] == "lost")
        assert "its record cannot be read" in made.launch(launch["id"])["reason"]
        assert alive(launch["pid"])
        os.kill(launch["pid"], signal.SIGKILL)
        until(lambda: made.launch(launch["id"])["state"] == "running")
        assert made.launch(launch["id"])["pid"] != launch["pid"]


def test_times_from_the_future_confuse_nobody(made: Instance):
    """As after a clock that was set back by a year."""
    number = made.start("sleeper")["id"]
    pid, file = made.launch(number)["pid"], state_of(made, number)
    made.kill_daemon()
    report = json.loads(file.read_text())
    file.write_text(json.dumps({**report, "started": report["started"] + 366 * 86400}))
    made.run("up", "--detach")
    assert [x["pid"] for x in made.ask("la")] == [pid]
    for command in (("la",), ("status", str(number)), ("why", str(number)), ("history", "sleeper")):
        made.run(*command)
    made.run("sd", str(number))
    assert not alive(pid)


def test_with_the_tightest_mask_everything_works(tmp_path: Path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure(APPS)
        made.run("up", "--detach", umask=0o077)
        number = made.start("umlaut")["id"]
        until(lambda: "0077" in made.run("logs", str(number)).stdout)
        made.run("sd", str(number))


LOCALES = [
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"TERM": "dumb", "LC_ALL": "C.UTF-8"},
    {"TERM": "no-such-terminal"},
]


def test_every_locale_and_no_terminal_gets_an_answer(made: Instance):
    number = str(made.start("umlaut")["id"])
    until(lambda: "0022" in made.run("logs", number).stdout)
    usual = dict(made.environment)
    for words in LOCALES:
        made.environment = {**usual, **words}
        for command in (
            ("la",),
            ("apps",),
            ("logs", number),
            ("status", number),
            ("top", "--once"),
        ):
            done = made.run(*command, stdin=subprocess.DEVNULL)
            assert "Traceback" not in done.stderr, (words, command)
            assert done.stdout, (words, command)
    made.environment = usual


def test_a_daemon_of_any_locale_finds_what_the_configuration_names(tmp_path: Path):
    """The file is UTF-8, and so are names on disk and what a program is told."""
    with instance(tmp_path / "h", up=False) as made:
        (made.root / "größe").mkdir()
        script = 'pwd; echo "$0" $WORD; exec sleep 1000'
        entry = {
            "path": "sh",
            "args": ["-c", script, "grüße ☃"],
            "cwd": "größe",
            "env": {"WORD": "ä"},
        }
        made.configure({"umlaut": entry})
        made.environment |= LOCALES[0]
        made.run("up", "--detach")
        number = made.start("umlaut")["id"]
        log = made.root / "logs" / f"{number}-umlaut.log"
        until(lambda: len(log.read_text("utf-8").splitlines()) == 2)
        assert log.read_text("utf-8").splitlines() == [str(made.root / "größe"), "grüße ☃ ä"]
        made.run("daemon", "restart")
        assert made.start("umlaut")["state"] == "running"


FOLDERS = ["keys", "keys/apps", "logs", "launches", "state", "state/apps", "run"]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_folders_that_others_may_enter_are_refused_one_by_one_with_the_way_out(
    tmp_path: Path, mode: int
):
    with instance(tmp_path / "h", up=False) as made:
        made.configure(APPS)
        made.run("up", "--detach")
        made.run("down")
        for name in FOLDERS:
            folder = made.root / name
            folder.mkdir(mode=0o700, exist_ok=True)  # `run` goes with what ran
            folder.chmod(mode)
            for command in (("up", "--detach"), ("up",)):
                assert f"chmod 700 {folder}" in made.run(*command, code=4).stderr
            assert f"chmod 700 {folder}" in made.run("doctor", code=2).stdout
            folder.chmod(0o700)
        made.run("up", "--detach")


def test_without_a_terminal_what_needs_one_says_so(made: Instance):
    for command in ((), ("attach", "sleeper")):
        done = made.run(*command, code=None, stdin=subprocess.DEVNULL)
        assert "Traceback" not in done.stderr
        assert done.returncode in {0, 2, 5, 9}, done
    made.run("la", stdin=subprocess.DEVNULL)


def test_more_programs_run_than_the_usual_limit_of_descriptors_allows(tmp_path: Path):
    """The daemon takes all that it may have; programs get what is usual here."""
    with instance(tmp_path / "h", up=False) as made:
        counted = {"path": "sh", "args": ["-c", "ulimit -Sn; exec sleep 1000"], "instances": 40}
        made.configure({"many": counted, "one": {**counted, "instances": 1}})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))  # noqa: E731
        made.run("up", "--detach", preexec_fn=few)
        made.run("start", "many")
        number = str(made.start("one")["id"])
        until(lambda: made.run("logs", number).stdout == "120\n")
        made.run("daemon", "restart")
        assert [x["state"] for x in made.ask("la")] == ["running"] * 41
        number = str(made.start("one")["id"])
        until(lambda: made.run("logs", number).stdout == "120\n")


@pytest.mark.parametrize(("name", "mode"), [("keys/cli.key", 0o644), ("keys/daemon.key", 0o640)])
def test_keys_that_others_can_read_are_refused_with_the_way_out(
    made: Instance, name: str, mode: int
):
    made.run("down")
    key = made.root / name
    key.chmod(mode)
    done = made.run("up", "--detach", code=4)
    assert f"chmod 600 {key}" in done.stderr
    key.chmod(0o600)
    made.run("up", "--detach")
