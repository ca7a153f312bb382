"""Restart rules, stop steps, instances and the other verbs, with real programs and a daemon that dies."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.instance import Instance, alive, belongs, instance, until

LOOP = "while :; do sleep 0.02; done"


def shell(script: str, **more: object) -> dict:
    return {"path": "sh", "args": ["-c", script], **more}


APPS = {
    "wrong": shell("exit 78", restart={"policy": "on-failure", "delay": "0.05s"}),
    "thrice": shell("exit 1", restart={"policy": "on-failure", "delay": "0.05s", "give_up": 3}),
    "three": shell("exit 3", restart={"policy": "on-failure", "success": [0, 3]}),
    "always": shell("sleep 0.05", restart={"policy": "always", "delay": "0.05s", "cap": "0.2s"}),
    "sleeper": {"path": "sleep", "args": ["1000"]},
    "steps": shell(
        f"trap 'echo got TERM' TERM; trap 'echo got INT; exit 0' INT; echo up; {LOOP}",
        ready={"log": "^up"}, stop=[{"signal": "TERM", "wait": "0.3s"}, {"signal": "INT", "wait": "10s"}],
    ),
    "reloads": shell(f"trap 'echo again' HUP; echo up; {LOOP}", ready={"log": "^up"}, reload="HUP"),
    "many": shell("echo number {i} $NUMBER; exec sleep 1000", env={"NUMBER": "n{i}"}, instances=3),
}  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with instance(tmp_path_factory.mktemp("home") / "h") as made:
        made.configure(APPS)
        yield made


def begun(up: Instance, app: str) -> int:
    up.run("start", app, code=None)
    return [x for x in up.ask("la", "--all") if x["app"] == app][-1]["id"]


def test_what_does_not_heal_is_tried_once(up: Instance):
    number = begun(up, "wrong")
    until(lambda: up.launch(number)["state"] == "failed")
    assert up.launch(number)["restarts"] == 0
    assert "78" in up.launch(number)["reason"]


def test_what_fails_in_a_row_is_given_up(up: Instance):
    number = begun(up, "thrice")
    until(lambda: up.launch(number)["state"] == "failed")
    assert up.launch(number)["failures"] == 3
    assert "given up after 3 failures" in up.launch(number)["reason"]


def test_other_codes_may_count_as_success(up: Instance):
    number = begun(up, "three")
    until(lambda: up.launch(number)["state"] == "exited")


def test_always_is_always(up: Instance):
    number = begun(up, "always")
    until(lambda: up.launch(number)["restarts"] >= 4)
    up.run("sd", str(number))
    assert up.launch(number)["wanted"] == "down"


def test_what_has_failed_is_shown_until_it_is_cleared(up: Instance):
    number = begun(up, "wrong")
    for _ in range(12):  # more than the list shows of what has ended
        up.start("sleeper")
    up.run("sd", "sleeper", "--yes")
    assert number in [x["id"] for x in up.ask("la")]
    up.run("sd", str(number))
    assert number not in [x["id"] for x in up.ask("la")]
    assert number in [x["id"] for x in up.ask("la", "--all")]


def test_a_new_launch_in_its_place_clears_it(up: Instance):
    first = begun(up, "wrong")
    second = begun(up, "wrong")
    shown = [x["id"] for x in up.ask("la") if x["app"] == "wrong" and x["state"] == "failed"]
    assert second in shown
    assert first != second


def test_restart_keeps_the_id_and_takes_another_process(up: Instance):
    before = up.start("sleeper")
    up.run("restart", str(before["id"]))
    after = up.launch(before["id"])
    assert (after["state"], after["restarts"]) == ("running", 1)
    assert after["pid"] != before["pid"]
    assert not alive(before["pid"])
    up.run("sd", str(before["id"]))
    up.run("restart", str(before["id"]))
    again = [x for x in up.ask("la") if x["app"] == "sleeper" and x["state"] == "running"]
    assert again[0]["id"] > before["id"]
    up.run("sd", str(again[0]["id"]))


def test_stop_goes_step_by_step(up: Instance):
    number = up.start("steps")["id"]
    up.run("sd", str(number))
    assert up.launch(number)["exit"]["code"] == 0
    assert "got TERM" in up.run("logs", str(number)).stdout
    assert "got INT" in up.run("logs", str(number)).stdout


def test_reload_sends_the_signal_and_nothing_is_started_again(up: Instance):
    before = up.start("reloads")
    up.run("reload", str(before["id"]))
    until(lambda: "again" in up.run("logs", str(before["id"])).stdout)
    assert up.launch(before["id"])["pid"] == before["pid"]
    refused = up.start("sleeper")
    done = up.run("reload", str(refused["id"]), code=None)
    assert done.returncode != 0
    assert "reload: HUP" in done.stderr
    up.run("sd", str(before["id"]), str(refused["id"]))


def test_kill_is_a_signal_and_the_rule_decides(up: Instance):
    started = up.start("sleeper")
    up.run("kill", "-s", "KILL", str(started["id"]))
    until(lambda: up.launch(started["id"])["state"] == "failed")
    assert up.launch(started["id"])["exit"]["signal"] == "SIGKILL"


def test_instances_have_numbers_and_are_scaled(up: Instance):
    def numbers() -> list[int]:
        return sorted(
            x["instance"] for x in up.ask("la") if x["app"] == "many" and x["wanted"] == "up"
        )

    up.run("scale", "many", "3")
    assert numbers() == [0, 1, 2]
    second = next(x for x in up.ask("la") if x["app"] == "many" and x["instance"] == 1)
    assert up.run("logs", str(second["id"])).stdout == "number 1 n1\n"
    up.run("sd", str(second["id"]))
    up.run("scale", "many", "4")
    assert numbers() == [0, 1, 2, 3]
    up.run("scale", "many", "1")
    assert numbers() == [0]
    up.run("scale", "many", "0")
    assert numbers() == []


def test_what_was_stopped_stays_stopped_over_the_death_of_the_daemon(tmp_path):
    apps = {"a": {"path": "sleep", "args": ["1000"], "autostart": True, "restart": "always"}}
    with instance(tmp_path / "h", up=False) as made:
        made.configure({**apps, "b": {**apps["a"]}})
        made.run("up", "--detach")
        made.run("sd", "a")
        made.kill_daemon()
        made.run("up", "--detach")
        assert {x["app"]: x["wanted"] for x in made.ask("la") if x["ended"] is None} == {"b": "up"}


def test_failures_in_a_row_are_counted_over_the_death_of_the_daemon(tmp_path):
    script = "echo x >> $VISCRIPT_HOME/runs; exit 1"
    rule = {"policy": "on-failure", "delay": "0.05s", "cap": "600s", "give_up": 14}
    with instance(tmp_path / "h") as made:
        made.configure({"a": shell(script, restart=rule)})
        number = begun(made, "a")
        until(lambda: made.launch(number)["failures"] >= 3)
        made.kill_daemon()
        made.run("up", "--detach")
        assert made.launch(number)["failures"] >= 3


def test_down_right_after_a_start_leaves_nothing(tmp_path):
    for attempt in range(3):
        with instance(tmp_path / f"h{attempt}") as made:
            made.configure({"a": shell("trap '' TERM; " + LOOP, instances=4)})
            made.run("scale", "--no-wait", "a", "4")
            made.run("down")
            reports = list(made.root.glob("launches/*"))
            assert reports == []
            pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()]
            assert not [pid for pid in pids if belongs(pid, made.root) and alive(pid)]


def test_a_lost_launch_comes_back_when_its_keeper_does(tmp_path):
    """A stopped keeper cannot be asked: after the daemon's death nothing can be proved of it."""
    with instance(tmp_path / "h") as made:
        made.configure(APPS)
        started = made.start("sleeper")
        report = json.loads((made.root / f"launches/{started['id']}/state.json").read_text())
        os.kill(report["keeper_pid"], signal.SIGSTOP)
        try:
            made.kill_daemon()
            made.run("up", "--detach")
            until(lambda: made.launch(started["id"])["state"] == "lost", 20)
            assert alive(started["pid"])
        finally:
            os.kill(report["keeper_pid"], signal.SIGCONT)
        until(lambda: made.launch(started["id"])["state"] == "running", 20)
        assert made.launch(started["id"])["pid"] == started["pid"]
