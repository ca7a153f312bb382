"""Probes and conditions with real programs: who is ready when, who is well, who waits for whom."""

import os
import signal
import sys

import pytest

from tests.support.instance import Instance, alive, instance, until
from tests.support.stack import free_port

SERVER = """\
import http.server, os, pathlib, socket, sys, time

kind, port = sys.argv[1], int(sys.argv[2])
here = pathlib.Path(os.environ["VISCRIPT_HOME"])
name = os.environ["VISCRIPT_APP"]
while not (here / f"go-{name}").exists():
    time.sleep(0.02)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if (here / f"ill-{name}").exists() else 200)
        self.end_headers()

    def log_message(self, *_):
        pass

if kind == "notify":
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        path = os.environ["NOTIFY_SOCKET"]
        told.sendto(b"READY=1\\nSTATUS=all is well", path)
elif kind == "log":
    print("server: listening", flush=True)
elif kind in ("tcp", "http"):
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
elif kind == "exec":
    (here / "made").touch()
while True:
    time.sleep(0.1 if kind == "notify" else 100)
    if kind == "notify" and not (here / f"ill-{name}").exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
"""


WAITS = "while [ ! -e $VISCRIPT_HOME/go ]; do sleep 0.02; done"


def server(kind: str, port: int = 0, **more: object) -> dict:
    args = ["server.py", kind, str(port)]
    return {"path": sys.executable, "args": args, "cwd": ".", **more}


@pytest.fixture(scope="module")
def ports():
    return {kind: free_port() for kind in ("tcp", "http")}


@pytest.fixture(scope="module")
def home(tmp_path_factory, ports):
    apps = {
        "tcp": server("tcp", ports["tcp"], ready={"tcp": f"127.0.0.1:{ports['tcp']}"}),
        "http": server(
            "http", ports["http"], ready={"http": f"http://127.0.0.1:{ports['http']}/"},
            alive={"http": f"http://127.0.0.1:{ports['http']}/", "every": "0.1s", "failures": 2},
            restart="always",
        ),
        "exec": server("exec", ready={"exec": ["/bin/sh", "-c", "test -e $VISCRIPT_HOME/made"]}),
        "log": server("log", ready={"log": "^server: listening$"}),
        "notify": server(
            "notify", ready={"notify": True},
            alive={"notify": True, "timeout": "1s", "every": "0.1s", "failures": 1},
        ),
    }  # fmt: skip
    with instance(tmp_path_factory.mktemp("home") / "h") as made:
        (made.root / "server.py").write_text(SERVER)
        made.configure(apps)
        yield made


@pytest.mark.parametrize("kind", ["tcp", "http", "exec", "log", "notify"])
def test_it_runs_when_its_probe_says_so_and_not_before(home: Instance, kind: str):
    home.run("start", "--no-wait", kind)
    found = [x for x in home.ask("la") if x["app"] == kind][-1]
    until(lambda: home.launch(found["id"])["state"] == "starting")
    assert not home.launch(found["id"])["ready"]
    (home.root / f"go-{kind}").touch()
    until(lambda: home.launch(found["id"])["state"] == "running")
    assert home.launch(found["id"])["ready"]


def test_what_is_not_well_is_degraded_and_recovers(home: Instance):
    [found] = [x for x in home.ask("la") if x["app"] == "http" and x["state"] != "exited"]
    number, pid = found["id"], found["pid"]
    (home.root / "ill-http").touch()
    until(lambda: home.launch(number)["state"] == "degraded")
    assert "status 503" in home.launch(number)["reason"]
    (home.root / "ill-http").unlink()
    until(lambda: home.launch(number)["state"] == "running")
    assert home.launch(number)["pid"] == pid


def test_a_watchdog_that_is_silent_is_not_well(home: Instance):
    [found] = [x for x in home.ask("la") if x["app"] == "notify"]
    (home.root / "ill-notify").touch()
    until(lambda: home.launch(found["id"])["state"] == "degraded")
    assert "WATCHDOG=1" in home.launch(found["id"])["reason"]
    (home.root / "ill-notify").unlink()
    until(lambda: home.launch(found["id"])["state"] == "running")


def test_what_stays_unwell_is_started_again(home: Instance):
    [found] = [x for x in home.ask("la") if x["app"] == "http" and x["state"] != "exited"]
    (home.root / "ill-http").touch()
    until(lambda: home.launch(found["id"])["restarts"] == 1, 20)
    (home.root / "ill-http").unlink()
    until(lambda: home.launch(found["id"])["state"] == "running")
    assert not alive(found["pid"])


def test_what_a_daemon_before_it_asked_the_next_one_asks_on(home: Instance):
    (home.root / "go-log").unlink(missing_ok=True)
    home.run("start", "--no-wait", "log")
    found = [x for x in home.ask("la") if x["app"] == "log"][-1]
    until(lambda: home.launch(found["id"])["state"] == "starting")
    home.kill_daemon()
    home.run("up", "--detach")
    assert home.launch(found["id"])["state"] == "starting"
    (home.root / "go-log").touch()
    until(lambda: home.launch(found["id"])["state"] == "running")


def test_conditions_hold_on_the_way_up_and_in_reverse_on_the_way_down(tmp_path):
    with instance(tmp_path / "h") as made:
        apps = {
            "migrate": {"path": "sh", "args": ["-c", WAITS]},
            "base": {"path": "sleep", "args": ["1000"], "after": [{"app": "migrate", "until": "completed"}]},
            "top": {"path": "sleep", "args": ["1000"], "after": [{"app": "base", "until": "ready"}]},
        }  # fmt: skip
        made.configure(apps)
        for app in apps:
            made.run("start", "--no-wait", app)
        ids = {x["app"]: x["id"] for x in made.ask("la")}
        until(lambda: made.launch(ids["top"])["reason"] == "waits for base")
        assert made.launch(ids["base"])["reason"] == "waits for migrate"
        (made.root / "go").touch()
        until(lambda: made.launch(ids["top"])["state"] == "running")
        made.run("sd", "base")
        until(lambda: made.launch(ids["top"])["ended"] is not None)
        top, base = made.launch(ids["top"]), made.launch(ids["base"])
        assert (top["state"], base["state"]) == ("exited", "exited")
        assert top["ended"] <= base["ended"]


UNWELL = """\
import os, pathlib, socket, time

ill = pathlib.Path(os.environ["VISCRIPT_HOME"], "ill-" + os.environ["VISCRIPT_APP"])
listener = None
while True:
    if ill.exists() and listener is not None:
        listener = listener.close()
    elif not ill.exists() and listener is None:
        listener = socket.create_server(("127.0.0.1", PORT))
    time.sleep(0.02)
"""
OFTEN = {"every": "0.1s", "timeout": "0.5s", "failures": 2}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    port = free_port()
    plain = {"path": sys.executable, "cwd": "."}
    apps = {
        "tcp": {**plain, "args": ["unwell.py"], "alive": {"tcp": f"127.0.0.1:{port}", **OFTEN}},
        "exec": {
            "path": "sleep", "args": ["1000"],
            "alive": {"exec": ["/bin/sh", "-c", "! test -e $VISCRIPT_HOME/ill-exec"], **OFTEN},
        },
        "bus": {**plain, "args": ["citizen.py"], "ready": "bus", "alive": {"bus": True, **OFTEN}},
    }  # fmt: skip
    with instance(tmp_path_factory.mktemp("home") / "h") as made:
        (made.root / "unwell.py").write_text(UNWELL.replace("PORT", str(port)))
        made.configure(apps)
        yield made


@pytest.mark.parametrize(
    ("kind", "told"), [("tcp", "Connection refused"), ("exec", "ended with 1"), ("bus", "")]
)
def test_each_way_of_asking_finds_out_that_it_is_not_well_and_that_it_is_again(
    watched: Instance, kind: str, told: str
):
    launch = watched.start(kind)
    number, ill = launch["id"], watched.root / f"ill-{kind}"
    ill.touch()
    if kind == "bus":  # its process is there, but nothing goes on in it
        os.kill(launch["pid"], signal.SIGSTOP)
    until(lambda: watched.launch(number)["state"] == "degraded")
    assert told in watched.launch(number)["reason"]
    ill.unlink()
    if kind == "bus":
        os.kill(launch["pid"], signal.SIGCONT)
    until(lambda: watched.launch(number)["state"] == "running")
    assert (watched.launch(number)["pid"], watched.launch(number)["restarts"]) == (launch["pid"], 0)
