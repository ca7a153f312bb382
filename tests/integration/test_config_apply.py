"""A changed configuration taken over by a daemon: only what it concerns is touched."""

import json
import os

import pytest

from tests.support.instance import instance, until

SLEEP = {"path": "sleep", "default_args": ["1000"], "autostart": True}
BEFORE = {
    "calm": SLEEP,
    "changed": {**SLEEP, "env": {"A": "1"}},
    "gone": SLEEP,
    "ruled": {**SLEEP, "restart": "never"},
}
AFTER = {
    "calm": {**SLEEP, "desc": "as it was"},
    "changed": {**SLEEP, "env": {"A": "2"}},
    "ruled": {**SLEEP, "restart": "always"},
    "fresh": SLEEP,
}


@pytest.fixture
def up(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure(BEFORE)
        made.run("up", "--detach")
        yield made


def pids(up) -> dict[str, int]:
    return {x["app"]: x["pid"] for x in up.ask("la") if x["state"] == "running"}


def test_plan_says_what_would_restart_and_why_and_does_nothing(up):
    before = pids(up)
    assert up.run("config", "plan").stdout == "nothing changes\n"
    up.configure(AFTER)
    lines = up.run("config", "plan").stdout.splitlines()
    assert lines == [
        "~ calm: changes as it runs",
        '    desc: "" -> as it was',
        "! changed: is restarted: environment changed",
        "    env.A: 1 -> 2",
        "- gone: is stopped: no longer configured",
        "~ ruled: changes as it runs",
        "    restart.policy: never -> always",
        "+ fresh: is started: new and marked autostart",
        "1 restarted, 1 stopped, 1 started; all others go on",
        "",
        "take it over: viscript config apply",
    ]
    found = up.ask("config", "plan")
    assert {x["app"]: x["does"] for x in found["apps"]} == {
        "calm": "change", "changed": "restart", "gone": "remove", "ruled": "change", "fresh": "add",
    }  # fmt: skip
    assert pids(up) == before


def test_another_file_can_be_compared_with_what_runs(up, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({"apps": {**BEFORE, "changed": AFTER["changed"]}}))
    lines = up.run("config", "plan", str(other)).stdout.splitlines()
    assert lines[0] == "! changed: is restarted: environment changed"
    other.write_text("apps: {a: {pth: x}}")
    assert up.run("config", "plan", str(other), code=8).stderr.startswith(f"error: {other}:1:12: ")


def test_a_broken_file_is_refused_and_changes_nothing(up):
    before = pids(up)
    (up.root / "config.yaml").write_text("apps: {a: {path: x, rstart: always}}\n")
    for verb in ("plan", "apply"):
        done = up.run("config", verb, code=8)
        assert "config.yaml:1:21: apps.a: unknown key 'rstart'" in done.stderr
    assert pids(up) == before


def test_apply_touches_only_what_the_change_concerns(up):
    before = pids(up)
    up.configure(AFTER)
    refused = up.run("config", "apply", code=9)
    assert "2 that run would be stopped or restarted; add --yes" in refused.stderr
    assert pids(up) == before
    done = up.run("config", "apply", "--yes")
    assert "1 restarted, 1 stopped, 1 started; all others go on" in done.stdout
    after = pids(up)
    assert after.keys() == {"calm", "changed", "ruled", "fresh"}
    assert (after["calm"], after["ruled"]) == (before["calm"], before["ruled"])
    assert after["changed"] != before["changed"]
    assert up.run("config", "plan").stdout == "nothing changes\n"


def test_a_new_restart_rule_holds_for_what_runs_already(up):
    up.configure({**BEFORE, "ruled": AFTER["ruled"]})
    up.run("config", "apply")
    before = pids(up)["ruled"]
    up.run("kill", "ruled")
    until(lambda: pids(up).get("ruled") not in {None, before})


def test_a_change_taken_over_by_a_start_is_still_planned_for_what_runs(up):
    before = pids(up)
    up.configure({**BEFORE, "changed": AFTER["changed"], "fresh": {"path": "true"}, "new": SLEEP})
    up.run("start", "fresh")  # the daemon reads the file again
    lines = up.run("config", "plan").stdout.splitlines()
    assert lines[0] == "! changed: is restarted: environment changed"
    assert "+ new: is started: new and marked autostart" in lines
    assert "changed (ID" in up.run("config", "apply").stdout
    assert "new" in pids(up)
    assert pids(up)["changed"] != before["changed"]


def test_what_could_not_start_is_said_and_nothing_is_touched(up):
    before = pids(up)
    up.configure({**BEFORE, "changed": {**SLEEP, "path": "bin/nothing"}, "gone": AFTER["changed"]})
    assert "bin/nothing does not exist" in up.run("config", "plan").stdout
    assert list(up.ask("config", "plan")["problems"]) == ["changed"]
    refused = up.run("config", "apply", "--yes", code=8)
    assert refused.stderr.endswith("bin/nothing does not exist; nothing was changed\n")
    assert pids(up) == before


def test_a_changed_file_of_variables_restarts_what_was_started_with_it(up):
    shown = {**SLEEP, "path": "sh", "default_args": ["-c", "echo got $WORD; exec sleep 1000"]}
    up.configure({**BEFORE, "changed": {**shown, "env_file": ["a.env"]}})
    (up.root / "a.env").write_text("WORD=first-secret\n")
    up.run("config", "apply")
    assert up.run("config", "plan").stdout == "nothing changes\n"
    before = pids(up)
    (up.root / "a.env").write_text("WORD=second-secret\n")
    plan = up.run("config", "plan").stdout
    assert plan.startswith("! changed: is restarted: environment changed\n    env_file.contents: ")
    assert "secret" not in plan
    up.run("config", "apply")
    until(lambda: "got second-secret" in up.run("logs", "changed").stdout)
    assert {k: v for k, v in pids(up).items() if k != "changed"} == {
        k: v for k, v in before.items() if k != "changed"
    }
    (up.root / "a.env").write_text("broken\n")
    refused = up.run("restart", "changed", code=8).stderr
    assert f"{up.root}/a.env:1: not NAME=value" in refused


def test_what_runs_on_and_could_not_be_started_again_is_said(up):
    up.configure({**BEFORE, "calm": {**SLEEP, "env_file": [str(up.root / "a.env")]}})
    (up.root / "a.env").write_text("A=1\n")
    up.run("config", "apply")
    (up.root / "a.env").unlink()
    lines = up.run("config", "plan").stdout.splitlines()
    assert lines[0] == "nothing changes"
    assert lines[1].endswith(
        f"apps.calm.env_file: {up.root}/a.env: cannot be read: No such file or directory"
    )
    assert list(up.ask("config", "plan")["warnings"]) == ["calm"]
    assert up.ask("config", "apply") is None


def test_a_file_that_would_be_waited_for_holds_nobody_up(up):
    os.mkfifo(up.root / "a.env")
    before = pids(up)
    up.configure({**BEFORE, "new": {**SLEEP, "env_file": [str(up.root / "a.env")]}})
    assert "a.env: cannot be read: not a plain file" in up.run("start", "new", code=8).stderr
    assert "not a plain file" in up.run("config", "apply", code=8).stderr
    os.mkfifo(up.root / "c.yaml")
    done = up.run("config", "plan", str(up.root / "c.yaml"), code=8)
    assert "c.yaml: cannot be read: not a plain file" in done.stderr
    assert pids(up) == before


def test_what_was_run_by_hand_goes_on(up):
    up.run("run", "--detach", "--name", "byhand", "--", "sleep", "1000")
    before = pids(up)
    assert "byhand" in before
    assert up.run("config", "plan").stdout == "nothing changes\n"
    up.configure(AFTER)
    up.run("config", "apply", "--yes")
    assert pids(up)["byhand"] == before["byhand"]


def test_a_new_role_on_the_bus_is_given_with_the_restart(up):
    up.configure({**BEFORE, "changed": {**BEFORE["changed"], "role": "observer"}})
    up.run("config", "apply")
    keys = json.loads(up.run("bus", "keys", "list", "--json").stdout)
    assert [x["roles"] for x in keys if x["name"] == "changed"] == [["observer"]]


def test_a_file_that_changes_between_plan_and_apply_is_looked_at_again(up):
    from viscript.client import Client
    from viscript.commands import apply
    from viscript.commands.order import Reply
    from viscript.errors import Conflict
    from viscript.home import Home

    up.configure({**BEFORE, "changed": AFTER["changed"]})
    with Client(Home(up.root)) as client, pytest.raises(Conflict, match="has changed since"):
        client.ask(apply.SUBJECT, apply.Request(select=[], digest="0" * 64), Reply)


def test_what_would_happen_is_shown_by_a_dry_run(up):
    before = pids(up)
    up.configure(AFTER)
    assert up.run("config", "apply", "--dry-run").stdout.startswith("~ calm: ")
    assert len(up.ask("config", "apply", "--dry-run")["apps"]) == 5
    assert pids(up) == before


def test_programs_read_the_job_that_it_became(up):
    assert up.ask("config", "apply") is None
    up.configure(AFTER)
    job = up.ask("config", "apply", "--yes")
    assert (job["verb"], job["state"]) == ("apply", "done")
    assert sorted(step["app"] for step in job["steps"]) == sorted({*BEFORE, *AFTER})
    assert up.ask("job", "show", str(job["job"]))["steps"] == job["steps"]


def test_instances_are_scaled_as_the_file_says(up):
    before = pids(up)
    up.configure({**BEFORE, "calm": {**SLEEP, "instances": 3}})
    up.run("config", "apply")
    running = [x for x in up.ask("la") if x["app"] == "calm" and x["state"] == "running"]
    assert sorted(x["instance"] for x in running) == [0, 1, 2]
    assert before["calm"] in {x["pid"] for x in running}
