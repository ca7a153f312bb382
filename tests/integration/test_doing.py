"""The verbs as a user has them: they end when it is so, never claim what is not, and jobs tell later."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading

import msgspec
import pytest

from bus import keystore
from bus.caller import Caller
from bus.identity import Address
from tests.support.instance import APPS, Instance, until
from viscript.commands import job, order, sd, start

MORE = {
    "web-a": {"path": "sleep", "args": [1000], "groups": ["front"]},
    "web-b": {"path": "sleep", "args": [1000], "groups": ["front"]},
    "deaf": {"path": "sh", "args": ["-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]},
}


@pytest.fixture
def made(tmp_path):
    made = Instance(tmp_path / "h")
    made.configure(APPS | MORE)
    try:
        made.run("up", "--detach")
        yield made
    finally:
        made.clean_up()


def states(made: Instance) -> dict[str, str]:
    return {x["app"]: x["state"] for x in made.ask("la", "--all")}


def test_one_selector_for_all_verbs(made):
    assert "would be done to web-a" in made.run("start", "--dry-run", "web*").stdout
    assert "web-a" not in states(made)
    made.run("start", "--yes", "web*")
    assert states(made) == {"sleeper": "running", "web-a": "running", "web-b": "running"}
    done = made.run("start", "--yes", "web*", code=9)
    assert "run already" in done.stderr
    names = [x["app"] for x in made.ask("sd", "--dry-run", "state=running and not sleep*")]
    assert names == ["web-a", "web-b"]
    made.run("sd", "--yes", "--batch", "1", "app=web*", "and", "not", "(web-b", "or", "sleeper)")
    assert states(made) == {"sleeper": "running", "web-a": "exited", "web-b": "running"}
    assert "matches state=lost" in made.run("sd", "state=lost", code=5).stderr
    assert "a closing ) is missing" in made.run("sd", "(a", code=2).stderr


def test_what_hits_several_is_agreed_to_first(made):
    made.run("start", "--yes", "web*")
    done = made.run("sd", "web*", code=9, stdin=subprocess.DEVNULL)
    assert "2 are meant: web-a (ID 2), web-b (ID 3)" in done.stderr
    assert "--yes" in done.stderr
    assert states(made)["web-a"] == "running"
    # Each named on its own is agreement enough.
    made.run("sd", "web-a", "web-b")
    assert states(made)["web-a"] == states(made)["web-b"] == "exited"


def answering(made: Instance, answer: bytes, *arguments: str) -> tuple[int, bytes]:
    """A command at a terminal, where somebody types `answer`."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "viscript.cli", *arguments], env=made.environment,
        stdin=slave, stdout=slave, stderr=slave, close_fds=True,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal without another end says so
        while data := os.read(master, 4096):
            shown += data
            if b"[y/N]" in shown and answer:
                os.write(master, answer)
                answer = b""
    os.close(master)
    return process.wait(), shown


def test_at_a_terminal_it_is_asked_and_only_yes_is_yes(made):
    made.run("start", "--yes", "web*")
    code, shown = answering(made, b"\n", "sd", "web*")
    assert code == 9
    assert b"All of them? [y/N]" in shown
    assert b"nothing was done" in shown
    assert states(made)["web-a"] == "running"
    code, shown = answering(made, b"y\n", "sd", "web*")
    assert code == 0
    assert states(made)["web-a"] == states(made)["web-b"] == "exited"


def test_out_of_time_is_unknown_with_a_job_that_tells_later(made):
    number = made.start("deaf")["id"]
    done = made.run("sd", "deaf", "--timeout", "0.3", code=7)
    assert f"deaf (ID {number}) is stopping" in done.stderr
    error = json.loads(made.run("sd", "deaf", "--timeout", "0.1", "--json", code=7).stderr)
    assert made.ask("job", "ls")[-1]["job"] == error["job"]
    found = made.ask("job", "ls")[-2]
    assert f"unknown, job {found['job']}: " in done.stderr
    assert (found["verb"], found["state"], found["by"]) == ("stop", "working", "cli")
    assert made.run("job", "show", str(found["job"]), code=7).stdout
    shown = made.run("job", "show", str(found["job"]), "--wait", "40")
    assert f"job {found['job']}: stop, done" in shown.stdout
    assert states(made)["deaf"] in {"exited", "failed"}
    assert "no job 99" in made.run("job", "show", "99", code=5).stderr


def test_stopping_a_never_waits_for_b(made):
    deaf = made.start("deaf")["id"]
    slow = json.loads(made.run("sd", "--no-wait", "--json", "deaf").stdout)
    assert slow["state"] == "working"
    made.run("sd", "sleeper")
    assert made.launch(deaf)["state"] == "stopping"
    os.kill(made.launch(deaf)["pid"], signal.SIGKILL)
    made.run("job", "show", str(slow["job"]), "--wait", "40")


def test_a_start_that_fails_is_never_a_success(made):
    made.configure(APPS | {"dies": {"path": "sh", "args": ["-c", "exit 3"]}})
    done = made.run("start", "--json", "dies", code=1)
    assert json.loads(done.stdout)["state"] == "failed"
    assert made.ask("job", "ls")[-1]["state"] == "failed"
    number = str(made.ask("job", "ls")[-1]["job"])
    assert "did not start well" in made.run("job", "show", number, code=1).stderr


def test_a_stop_takes_the_place_of_a_start_that_is_not_done(made):
    made.configure({**APPS, "never": {"path": "sleep", "args": [1000], "ready": "bus"}})
    begun = json.loads(made.run("start", "--no-wait", "--json", "never").stdout)
    number = str(begun["steps"][0]["id"])
    made.run("sd", number)
    done = made.run("job", "show", str(begun["job"]), code=9)
    assert "came in between" in done.stderr


def test_cancel_begins_nothing_more(made):
    made.start("deaf")
    made.run("start", "web-a")
    begun = json.loads(
        made.run("sd", "--no-wait", "--json", "--batch", "1", "deaf", "web-a").stdout
    )
    cancelled = made.ask("job", "cancel", str(begun["job"]))
    assert [step["state"] for step in cancelled["steps"]] == ["working", "cancelled"]
    made.run("job", "show", str(begun["job"]), "--wait", "40", code=1)
    assert states(made)["web-a"] == "running"
    assert "has ended" in made.run("job", "cancel", str(begun["job"]), code=9).stderr


def test_what_a_killed_daemon_had_begun_is_followed_to_its_end_by_the_next(made):
    made.start("deaf")
    begun = json.loads(made.run("sd", "--no-wait", "--json", "deaf").stdout)
    outcome = []

    def wait():
        outcome.append(made.run("job", "show", str(begun["job"]), "--wait", "30", code=None))

    waiting = threading.Thread(target=wait)
    waiting.start()
    made.kill_daemon()
    waiting.join()
    assert outcome[0].returncode in {6, 7}
    made.run("up", "--detach")
    done = made.ask("job", "show", str(begun["job"]), "--wait", "40")
    assert [(x["app"], x["state"]) for x in done["steps"]] == [("deaf", "done")]
    assert states(made)["deaf"] == "exited"
    assert made.start("sh", "sleep 1")["id"]
    assert made.ask("job", "ls")[-1]["job"] > begun["job"]


def test_a_restart_that_a_killed_daemon_may_have_begun_is_unknown_afterwards(made):
    made.start("deaf")
    begun = json.loads(made.run("restart", "--no-wait", "--json", "deaf").stdout)
    made.kill_daemon()
    made.run("up", "--detach")
    done = made.run("job", "show", str(begun["job"]), code=7)
    assert "the daemon ended meanwhile" in done.stdout
    made.run("sd", "deaf")


class Client:
    """A caller by hand, with the home's own key."""

    def __init__(self, made: Instance) -> None:
        found = json.loads((made.root / "daemon.json").read_text())
        self._daemon = found["key"]
        pair = keystore.load(made.root / "keys" / "cli.key")
        self._caller = Caller(Address(found["endpoint"], found["broker_key"]), pair, name="t")

    def __enter__(self):
        self._caller.__enter__()
        return self

    def __exit__(self, *exc) -> None:
        self._caller.__exit__(*exc)

    def ask(self, subject: str, request: object, kind: type):
        body = self._caller.request(
            subject, msgspec.msgpack.encode(request), to=self._daemon, timeout=20.0
        )
        return msgspec.msgpack.decode(body, type=kind)


def test_an_order_that_arrives_twice_is_carried_out_once(made):
    with Client(made) as client:
        request = start.Request(select=["sh"], args=["sleep 100"], request="same")
        first = client.ask(start.SUBJECT, request, order.Reply).job
        again = client.ask(start.SUBJECT, request, order.Reply).job
        assert first.job == again.job
        client.ask(job.SUBJECT, job.Request("show", first.job, 0, 10.0), job.Reply)
        third = client.ask(start.SUBJECT, request, order.Reply).job
        assert third.job == first.job
    assert [x["app"] for x in made.ask("la")].count("sh") == 1
    # Not even a daemon that was killed in between does it again.
    made.kill_daemon()
    made.run("up", "--detach")
    with Client(made) as client:
        assert client.ask(start.SUBJECT, request, order.Reply).job.job == first.job
        client.ask(sd.SUBJECT, sd.Request(select=["sh"], request="same too"), order.Reply)
    assert [x["app"] for x in made.ask("la")].count("sh") == 1


def test_wait_for_ready_for_the_end_and_for_what_cannot_come(made):
    assert "sleeper (ID 1) is running" in made.run("wait", "sleeper").stdout
    done = made.run("wait", "sleeper", "--for", "ended", "--timeout", "0.2", code=7)
    assert "not yet ended: sleeper (ID 1) is running" in done.stderr
    made.start("sh", "sleep 1")
    assert "is exited" in made.run("wait", "2", "--for", "ended", "--timeout", "20").stdout
    assert "does not become ready any more" in made.run("wait", "2", code=3).stderr
    assert "nothing to wait for" in made.run("wait", "2", "--for", "godot", code=2).stderr
    made.run("wait", "nosuch", code=5)


def test_run_is_the_command_with_its_output_and_its_code(made):
    script = "echo out; echo err >&2; exit 42"
    assert made.run("run", "--name", "mine", "sh", "-c", script, code=42).stdout == "out\nerr\n"
    assert made.ask("la")[-1]["exit"] == {"code": 42, "signal": None, "how": "by itself"}
    assert "sh is an app in" in made.run("run", "sh", "-c", script, code=9).stderr


def test_run_shows_all_that_is_printed_also_without_a_last_newline(made):
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; printf end"
    done = made.run("run", "--name", "much", "--", "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert lines[-1] == "end"
    assert lines[:-1] == [str(i) for i in range(1, 20001)]
    assert not done.stdout.endswith("\n")


def test_run_takes_a_name_a_folder_and_signals_as_128_and_more(made, tmp_path):
    (tmp_path / "script").write_text("#!/bin/sh\npwd\nkill -9 $$\n")
    (tmp_path / "script").chmod(0o755)
    done = made.run("run", "--name", "mine", "--cwd", str(tmp_path), "--", "./script", code=137)
    assert done.stdout == f"{tmp_path}\n"
    assert made.ask("la")[-1]["app"] == "mine"
    assert "choose another --name" in made.run("run", "--name", "sleeper", "true", code=9).stderr
    assert "not a name" in made.run("run", "--name", "a b", "true", code=2).stderr
    assert "nothing" in made.run("run", "--name", "x", "/no/nothing", code=8).stderr


def test_run_detached_is_an_app_like_any_other_and_survives_the_daemon(made):
    begun = json.loads(made.run("run", "-d", "--json", "--name", "mine", "sleep", "1000").stdout)
    assert begun["state"] == "running"
    made.kill_daemon()
    made.run("up", "--detach")
    assert made.launch(begun["id"])["pid"] == begun["pid"]
    made.run("sd", "mine")
    assert made.launch(begun["id"])["state"] == "exited"


def test_control_c_shuts_down_what_run_began(made):
    command = [
        sys.executable, "-P", "-m", "viscript.cli", "run", "--name", "mine", "--", "sh", "-c",
        "echo ready; sleep 1000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=made.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    until(lambda: states(made)["mine"] == "exited")


# Restart, reload, kill and scale.

COUNTER = "trap 'echo hup' HUP; echo begun; while :; do sleep 0.05; done"


def test_restart_is_a_new_run_with_the_same_id_and_waits_for_it(made):
    before = made.launch(1)
    made.run("restart", "sleeper")
    after = made.launch(1)
    assert (after["state"], after["generation"]) == ("running", before["generation"] + 1)
    assert after["pid"] != before["pid"]
    # What has ended is started anew, with its arguments.
    number = made.start("sh", "sleep 0.3; exit 5")["id"]
    made.run("wait", str(number), "--for", "ended", "--timeout", "20")
    again = made.ask("restart", str(number))[0]
    assert (again["id"], again["args"]) == (number + 1, ["sleep 0.3; exit 5"])


def test_a_restart_that_does_not_come_up_is_no_success(made):
    flag = made.root / "bad"
    script = f"test -e {flag} && exit 3; sleep 1000"
    number = made.start("sh", script)["id"]
    flag.touch()
    done = made.run("restart", str(number), code=1)
    assert "did not start well" in done.stderr


def test_a_rolling_restart_stops_at_the_first_that_fails(made):
    flag = made.root / "bad"
    script = f"test -e {flag} && exit 3; sleep 1000"
    numbers = [made.start("sh", script)["id"] for _ in range(2)]
    flag.touch()
    done = made.run("restart", "--batch", "1", *map(str, numbers), code=1)
    assert f"ID {numbers[1]}) not begun, as sh failed" in done.stderr
    assert made.launch(numbers[1])["generation"] == 1


def test_reload_and_kill_reach_the_program_and_leave_it_running(made):
    made.configure(APPS | {"hups": {"path": "sh", "args": ["-c", COUNTER], "reload": "HUP"}})
    number = made.start("hups")["id"]
    until(lambda: "begun" in made.run("logs", str(number)).stdout)
    assert "read its configuration again" in made.run("reload", "hups").stdout
    until(lambda: made.run("logs", str(number)).stdout.count("hup") == 1)
    assert "was sent SIGHUP" in made.run("kill", "-s", "hup", "hups").stdout
    until(lambda: made.run("logs", str(number)).stdout.count("hup") == 2)
    assert made.launch(number)["state"] == "running"
    assert "has no signal for it" in made.run("reload", "sleeper", code=9).stderr
    assert "did you mean 'HUP'" in made.run("kill", "-s", "HUPP", "hups", code=2).stderr
    assert made.run("kill", "--signal", "9", "hups").stdout
    made.run("wait", str(number), "--for", "ended", "--timeout", "20")
    assert made.launch(number)["exit"]["signal"] == "SIGKILL"
    assert "nothing of it runs" in made.run("kill", str(number), code=1).stderr


def test_scale_is_as_many_as_wanted_when_it_returns(made):
    def count():
        return [x["instance"] for x in made.ask("la") if x["app"] == "web-a" and x["pid"]]

    assert "runs 3 times" in made.run("scale", "web-a", "3").stdout
    assert count() == [0, 1, 2]
    job = made.ask("scale", "web-a", "1")
    assert (job["verb"], job["state"], job["steps"][0]["text"]) == ("scale", "done", "runs 1 time")
    assert count() == [0]
    assert made.ask("scale", "--dry-run", "web-a", "5")[0]["app"] == "web-a"
    assert count() == [0]
    made.run("scale", "web-a", "0")
    assert count() == []
    made.run("scale", "web-a", "-1", code=2)
    made.run("scale", "nosuch", "1", code=5)


def test_an_app_of_several_instances_is_meant_as_one(made):
    made.configure(APPS | {"many": {"path": "sleep", "args": [1000], "instances": 3}})
    begun = json.loads(made.run("start", "--json", "many").stdout)
    assert [x["instance"] for x in begun] == [0, 1, 2]
    shown = made.run("la", "many", "sleeper").stdout.split()
    assert {"many:0", "many:1", "many:2", "sleeper"} <= {*shown}
    assert [x["instance"] for x in made.ask("sd", "many:1")] == [1]
    assert {x["state"] for x in made.ask("sd", "many")} == {"exited"}


def test_what_needs_it_is_shut_down_with_it_and_said(made):
    made.configure(
        APPS
        | {
            "base": {"path": "sleep", "args": [1000]},
            "upon": {"path": "sleep", "args": [1000], "after": ["base"]},
        }
    )
    made.run("start", "base")
    made.run("start", "upon")
    assert [x["app"] for x in made.ask("sd", "--dry-run", "base")] == ["base", "upon"]
    out = made.run("sd", "base").stdout
    assert "base (ID" in out
    assert "upon (ID" in out
    assert states(made)["upon"] == "exited"
