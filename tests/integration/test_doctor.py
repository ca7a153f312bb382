"""`viscript doctor`: every check, by breaking what it looks at."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.instance import Instance, alive, instance, until

AS_NOBODY = """\
import os, sys
from pathlib import Path
from viscript.doctor import files
from viscript.home import Home
os.setgid(65534)
os.setuid(65534)
found = files.home(Home(Path(sys.argv[1])))
print(found)
sys.exit(2 if any(x.level == "broken" for x in found) else 0)
"""


@pytest.fixture
def down(tmp_path) -> Instance:
    """A home that was up once, with a configuration that can be started."""
    made = Instance(tmp_path / "h")
    made.environment |= {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    made.configure({"sleeper": {"path": "sleep", "args": ["1000"], "autostart": True}})
    for folder in ("keys/apps", "logs", "launches", "state/apps"):
        (made.root / folder).mkdir(parents=True, mode=0o700)
    for folder in ("keys", "state"):
        (made.root / folder).chmod(0o700)
    return made


def findings(of: Instance, code: int, **more) -> dict[str, dict]:
    """By check; of several the last that is not well."""
    found = json.loads(of.run("doctor", "--json", code=code, **more).stdout)
    assert found["code"] == code
    by_check: dict[str, dict] = {}
    for finding in found["findings"]:
        if finding["check"] not in by_check or finding["level"] != "ok":
            by_check[finding["check"]] = finding
    assert all(x["todo"] for x in by_check.values() if x["level"] != "ok")
    return by_check


def only(of: Instance, check: str, level: str, **more) -> dict:
    """The one thing that is wrong."""
    found = findings(of, {"warning": 1, "broken": 2}[level], **more)
    assert [x["check"] for x in found.values() if x["level"] != "ok"] == [check]
    assert found[check]["level"] == level
    return found[check]


def test_a_home_in_order_is_well(down):
    found = findings(down, 0)
    assert {
        "python",
        "libzmq",
        "limits",
        "disk",
        "clock",
        "home",
        "keys",
        "config",
        "daemon",
    } < set(found)
    assert "all is well" in down.run("doctor").stdout


def test_a_home_that_is_not_there_yet_is_well(tmp_path):
    made = Instance(tmp_path / "h")
    made.environment |= {"VISCRIPT_HOME": str(tmp_path / "none"), "HOME": str(tmp_path)}
    assert "viscript up makes it" in made.run("doctor").stdout
    assert not (tmp_path / "none").exists()


def test_what_runs_is_asked(tmp_path):
    with instance(tmp_path / "h") as made:
        made.configure({"sleeper": {"path": "sleep", "args": ["1000"]}})
        made.environment["HOME"] = str(tmp_path)
        found = findings(made, 0)
        assert "answers, pid" in found["daemon"]["text"]
        assert found["broker"]["level"] == "ok"
        assert "agrees" in found["skew"]["text"]
        assert "2 keepers" in found["keepers"]["text"]


def test_a_folder_that_others_may_read(down):
    (down.root / "keys").chmod(0o755)
    found = only(down, "home", "broken")
    assert found["todo"] == f"chmod 700 {down.root / 'keys'}"


def test_a_file_in_the_place_of_a_folder(down):
    (down.root / "logs").rmdir()
    (down.root / "logs").touch()
    assert "is no folder" in only(down, "home", "broken")["text"]


def test_a_link_that_leads_nowhere(down):
    (down.root / "logs").rmdir()
    (down.root / "logs").symlink_to("nowhere")
    assert "No such file" in only(down, "home", "broken")["text"]


def test_a_key_that_others_may_read(down):
    key = down.root / "keys/cli.key"
    key.write_text("{}")
    key.chmod(0o644)
    found = only(down, "keys", "broken")
    assert found["where"] == str(key)
    assert found["todo"] == f"chmod 600 {key}"


def test_a_key_file_that_is_none(down):
    key = down.root / "keys/apps/sleeper.key"
    key.write_text('{"public": "x", "secret": "y"}')
    key.chmod(0o600)
    assert "not a key file" in only(down, "keys", "broken")["text"]


def test_an_access_list_that_is_none(down):
    (down.root / "access.json").write_text("[")
    (down.root / "access.json").chmod(0o600)
    assert only(down, "keys", "broken")["where"] == str(down.root / "access.json")


def test_a_configuration_with_a_mistake(down):
    (down.root / "config.yaml").write_text("apps:\n  web:\n    pathh: x\n")
    found = only(down, "config", "broken")
    assert "config.yaml:3" in found["text"]


def test_an_app_that_is_not_there(down):
    down.configure({"web": {"path": "bin/nothing"}})
    found = only(down, "config", "warning")
    assert "web cannot be started" in found["text"]
    assert "viscript show web" in found["todo"]


def test_a_clock_that_has_gone_back(down):
    ahead = time.time() + 3600
    (down.root / "daemon.lock").touch()
    os.utime(down.root / "daemon.lock", (ahead, ahead))
    assert "gone back" in only(down, "clock", "warning")["text"]


def test_few_open_files(down):
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    assert "ulimit -n" in only(down, "limits", "broken", preexec_fn=few)["todo"]


def test_few_processes(down):
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (500, 500))

    assert "ulimit -u" in only(down, "limits", "warning", preexec_fn=few)["todo"]


def test_a_library_that_cannot_be_loaded(down):
    damaged = down.root / "damaged" / "zmq"
    damaged.mkdir(parents=True)
    (damaged / "__init__.py").write_text("raise ImportError('libzmq.so.5: no such file')")
    down.environment["PYTHONPATH"] = str(damaged.parent)
    (down.root / "keys" / "cli.key").touch(mode=0o600)
    found = findings(down, 2)
    assert {"libzmq", "keys"} <= {name for name, x in found.items() if x["level"] == "broken"}
    assert "no such file" in found["libzmq"]["text"]
    assert found["home"]["level"] == found["config"]["level"] == "ok"


AHEAD = """\
import sys, time
if "bus.cli" in sys.orig_argv:
    right = time.time
    time.time = lambda: right() + 3600
"""


def test_a_broker_whose_clock_is_ahead(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        (tmp_path / "sitecustomize.py").write_text(AHEAD)
        made.environment["PYTHONPATH"] = str(tmp_path)
        made.run("up", "--detach")
        found = findings(made, 2)["skew"]
        assert found["level"] == "broken"
        assert "s ahead" in found["text"]


def test_a_socket_that_nobody_listens_at(down):
    down.root.joinpath("run").mkdir(mode=0o700)
    os.chdir(down.root / "run")  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as left:
        left.bind("keeper-7.ctl")
    run = json.loads(down.run("doctor", "--json", code=None).stdout)
    place = next(x["where"] for x in run["findings"] if x["check"] == "sockets")
    if place != str(down.root / "run"):  # the path of this home is too long for sockets
        pytest.fail(f"sockets are looked for in {place}")
    assert "keeper-7.ctl" in only(down, "sockets", "warning")["text"]


def test_completion_of_another_installation(down):
    down.run("completion", "install", "fish")
    assert findings(down, 0)["completion"]["text"] == "installed for fish"
    script = next(Path(down.environment["HOME"]).rglob("viscript.fish"))
    script.write_text(script.read_text().replace(sys.executable, "/gone/python"))
    assert only(down, "completion", "warning")["todo"] == "viscript completion install fish"


def test_a_daemon_that_does_not_answer(tmp_path):
    with instance(tmp_path / "h") as made:
        made.configure({"sleeper": {"path": "sleep", "args": ["1000"]}})
        pid = made.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            found = findings(made, 2)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "does not answer" in found["daemon"]["text"]
        assert found["broker"]["level"] == "ok"


def test_a_broker_that_does_not_answer(tmp_path):
    with instance(tmp_path / "h") as made:
        made.configure({"sleeper": {"path": "sleep", "args": ["1000"]}})
        pid = made.ask("status")["broker"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            found = findings(made, 2)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert found["broker"]["level"] == "broken"


def test_keepers_without_a_daemon_and_programs_without_keepers(tmp_path):
    with instance(tmp_path / "h") as made:
        made.configure({"sleeper": {"path": "sleep", "args": ["1000"]}})
        (number,) = [str(x["id"]) for x in made.ask("la")]
        made.kill_daemon()
        found = findings(made, 1)
        assert "viscript up" in found["daemon"]["todo"]
        assert number in found["keepers"]["text"]
        report = json.loads((made.root / "launches" / number / "state.json").read_text())
        os.kill(report["keeper_pid"], signal.SIGKILL)
        until(lambda: not alive(report["keeper_pid"]))
        found = findings(made, 1)
        assert f"{number} (pid {report['pid']})" in found["orphans"]["text"]
        made.run("up", "--detach")
        until(lambda: made.run("doctor", code=None).returncode == 0)


def test_a_read_only_home_is_named(down):
    if os.getuid() == 0:  # root may write everywhere: as somebody else
        done = _as_nobody(down)
        assert "belongs to another user" in done.stdout
        assert done.returncode == 2
        return
    down.root.chmod(0o500)
    assert "cannot be written" in only(down, "home", "broken")["text"]


def _as_nobody(of: Instance) -> subprocess.CompletedProcess:
    of.root.chmod(0o755)
    for folder in of.root.parents:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)

    sources = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(of.root)],
        capture_output=True, text=True, check=False, timeout=50, cwd=sources,
    )  # fmt: skip
