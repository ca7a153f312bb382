"""The command line: exit codes, messages, and what it imports. Nothing here needs a daemon."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.instance import APPS, Instance, instance
from viscript.cli import wants_json


@pytest.fixture
def home(tmp_path):
    """A home in which nothing was ever started."""
    return Instance(tmp_path / "h")


def test_no_daemon_is_code_6_with_the_way_out(home):
    for command in (["la"], ["s", "sleeper"], ["ping", "1"], ["ru", "1"], ["sd", "1"], ["down"]):
        done = home.run(*command, code=6)
        assert str(home.root) in done.stderr
        assert done.stdout == ""
    assert "viscript up" in home.run("la", code=6).stderr


def test_status_without_a_daemon_is_code_3_and_still_a_document(home):
    done = home.run("status", "--json", code=3)
    assert json.loads(done.stdout)["daemon"] == {
        "pid": None, "state": "stopped", "key": None, "since": None, "version": None, "config": None,
    }  # fmt: skip
    assert json.loads(done.stderr)["exit_code"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["la", "--bad"], "--bad"),
        (["apps", "surplus"], "surplus"),
        (["why"], "ID|APP"),
        (["ping", "--timeout", "x"], "x"),
        (["s"], "APP"),
        (["sd"], "ID|APP"),
        (["logs", "1", "-n", "x"], "x"),
        (["logs", "1", "-n", "-1"], "-1"),
        (["up", "--home"], "--home"),
    ],
)
def test_usage_errors_are_code_2(home, arguments, words):
    done = home.run(*arguments, code=2)
    assert words in done.stderr
    assert "--help" in done.stderr


def test_an_argument_that_is_not_utf_8_is_code_2(home):
    done = home.run("s", "sleeper", b"\xff", code=2)
    assert "an argument is not UTF-8: b'\\xff'" in done.stderr


def test_utf_8_is_understood_in_any_locale(tmp_path):
    with instance(tmp_path / "h") as made:
        made.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        made.run("s", "sh", "echo ü€; sleep 100".encode())
        assert made.launch(2)["args"] == ["echo ü€; sleep 100"]
        made.run("--home", "/tmp/ü€".encode(), "la", code=2)


def test_output_that_cannot_be_written_is_code_1(home):
    for command in (["apps"], ["help"], ["--help"], ["--version"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "viscript.cli", *command], env=home.environment,
                stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False,
            )  # fmt: skip
        assert done.stderr == "error: standard output: No space left on device\n"
        assert done.returncode == 1


def test_a_broker_folder_that_cannot_be_made_is_code_8():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bus.cli", "init", "/proc/nope"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 8
    assert done.stderr.startswith("bus-broker: /proc/nope: cannot be made: ")
    assert "\n" not in done.stderr.rstrip()


def test_errors_are_json_when_asked_for(home):
    for arguments, code in (
        (["la", "--json"], 6),
        (["--json", "la"], 6),
        (["la", "--json", "--bad"], 2),
    ):
        error = json.loads(home.run(*arguments, code=code).stderr)
        assert error.keys() == {"error", "message", "exit_code"}
        assert error["exit_code"] == code


def test_json_after_start_app_is_the_apps():
    assert wants_json(["la", "--json"])
    assert wants_json(["--json", "start", "a"])
    assert wants_json(["--home", "x", "s", "--home", "y", "--json", "a"])
    assert not wants_json(["s", "a", "--json"])
    assert not wants_json(["la"])


def test_apps_and_help_need_no_daemon(home):
    out = home.run("apps").stdout
    assert "sleeper" in out
    assert "bin/nothing does not exist" in out
    entries = {x["name"]: x for x in home.ask("apps")}
    assert entries.keys() == APPS.keys()
    assert entries["sleeper"]["autostart"] is True
    assert entries["sleeper"]["problem"] is None
    assert "does not exist" in entries["missing"]["problem"]
    assert "It is not there." in home.run("help", "missing").stdout
    assert "did you mean 'sleeper'?" in home.run("help", "sleper", code=5).stderr
    assert "Exit codes" in home.run("help").stdout


def test_a_file_in_the_original_schema_loads_and_lists(home):
    (home.root / "old.yaml").write_text(
        "apps:\n"
        "  mesh-node:\n"
        "    daemon: true\n    desc: DESCRIPTION GOES HERE\n    path: bin/mesh/run-node\n"
        "    default_args: []\n    help: |\n        [1] Host.\n"
        "  wallet:\n    daemon: false\n    path: /bin/wallet\n    default_args:\n    desc: x\n"
        "settings:\n  verboseInput: false\n  verifyParsingByPrinting: true\n  runHeadless: false\n"
    )
    out = home.run("apps", "--config", str(home.root / "old.yaml")).stdout
    assert "mesh-node" in out
    assert "DESCRIPTION GOES HERE" in out


def test_broken_configuration_is_code_8_with_its_place(home):
    config = home.root / "config.yaml"
    config.write_text("apps:\n  a:\n    path: x\n    autostrt: true\n")
    for command in (["apps"], ["up", "--detach"], ["help", "a"]):
        done = home.run(*command, code=8)
        assert f"{config}:4:5: " in done.stderr
        assert "did you mean 'autostart'?" in done.stderr
    done = home.run("apps", "--config", "/no/such.yaml", code=8)
    assert "/no/such.yaml: cannot be read" in done.stderr


def test_a_home_open_to_others_is_code_4(home):
    home.root.chmod(0o777)
    assert "chmod 700" in home.run("up", "--detach", code=4).stderr


def test_unknown_things_are_code_5(tmp_path):
    with instance(tmp_path / "h") as made:
        assert "did you mean 'sleeper'?" in made.run("start", "sleper", code=5).stderr
        assert "no launch has the id 99" in made.run("sd", "99", code=5).stderr
        assert "no launch has the id" in made.run("ping", "9" * 400, code=5).stderr
        made.run("sd", "1", "99", code=5)
        assert made.ask("la")[0]["state"] == "running"
        assert "no log of 'zzz'" in made.run("logs", "zzz", code=5).stderr
        done = made.run("start", "missing", code=8)
        assert f"{made.root}/config.yaml:" in done.stderr
        assert "bin/nothing does not exist" in done.stderr
        assert len(made.ask("la")) == 1
        made.run("sd", "1")
        assert "has ended" in made.run("ping", "1", code=1).stderr
        assert "uses nothing" in made.run("ru", "1", code=1).stderr
        assert "had ended already" in made.run("sd", "1").stdout
        # The file has changed meanwhile: taken over at the next start, refused if it is broken.
        (made.root / "config.yaml").write_text("apps: {a: {pth: x}}\n")
        assert "did you mean 'path'?" in made.run("start", "a", code=8).stderr
        made.configure({"new": {"path": "sleep", "args": [500]}})
        assert made.start("new")["state"] == "running"


def test_output_is_safe_on_a_terminal_only(home):
    logs = home.root / "logs"
    logs.mkdir()
    (logs / "1-a.log").write_bytes(b"x\x1b[31my\x1b]0;t\x07z\n")
    assert home.run("logs", "a").stdout == "x\x1b[31my\x1b]0;t\x07z\n"
    assert on_a_terminal(home, "logs", "a") == b"xyz\r\n"
    assert on_a_terminal(home, "logs", "a", "--raw") == b"x\x1b[31my\x1b]0;t\x07z\r\n"


def on_a_terminal(home: Instance, *arguments: str) -> bytes:
    master, slave = pty.openpty()
    command = [sys.executable, "-P", "-m", "viscript.cli", *arguments]
    subprocess.run(command, env=home.environment, stdout=slave, check=True, timeout=30)
    os.close(slave)
    text = b""
    try:
        while data := os.read(master, 4096):
            text += data
    except OSError:  # how a terminal without another end says so
        pass
    os.close(master)
    return text


def test_the_newest_log_and_the_last_lines(home):
    logs = home.root / "logs"
    logs.mkdir()
    (logs / "9-a.log").write_text("old\n")
    (logs / "10-a.log").write_text("".join(f"line {i}\n" for i in range(50_000)))
    assert home.run("logs", "a", "-n", "2").stdout == "line 49998\nline 49999\n"
    assert home.run("logs", "9").stdout == "old\n"
    assert home.run("logs", "a", "-n", "0").stdout == ""
    assert len(home.run("logs", "a", "-n", "20000").stdout.splitlines()) == 20_000
    assert home.ask("logs", "9")["lines"] == ["old"]


def imported(code: str) -> set[str]:
    """The top modules that are loaded after `code`."""
    script = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    ).stdout
    return set(out.splitlines()[-1].split())


def test_the_version_costs_no_bus():
    loaded = imported("from viscript.cli import run; assert run(['--version']) == 0")
    assert not loaded & {
        "zmq",
        "yaml",
        "asyncio",
        "msgspec",
        "psutil",
        "rich",
        "pydantic",
        "sqlite3",
    }


def test_listing_costs_no_asyncio(tmp_path):
    with instance(tmp_path / "h") as made:
        loaded = imported(
            f"from viscript.cli import run; run(['--home', {str(made.root)!r}, 'la'])"
        )
    assert "bus.caller" in loaded
    assert not loaded & {"asyncio", "yaml", "psutil", "rich", "pydantic", "sqlite3", "nicegui"}


def test_version():
    out = subprocess.run(
        [Path(sys.executable).with_name("viscript"), "--version"], capture_output=True, text=True,
        check=True, timeout=30,
    ).stdout  # fmt: skip
    assert out.startswith("viscript 0.")
