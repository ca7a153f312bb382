"""What one sees of what runs: usage, pings, reasons, histories; with a real daemon, broker and programs."""

import json
import os

import pytest

from tests.support.instance import APPS, Instance, instance, until

SEEN = {
    **APPS,
    "late": {"path": "sleep", "args": ["1000"], "after": ["slow"]},
    "slow": {"path": "sleep", "args": ["1000"], "ready": "bus"},
    "probed": {
        "path": "sleep",
        "args": ["1000"],
        "cwd": ".",
        "alive": {"exec": ["test", "-e", "well"], "every": "0.1s", "failures": 1000},
    },
    "once": {"path": "true", "restart": "on-failure"},
    "after-once": {
        "path": "sleep",
        "args": ["1000"],
        "after": [{"app": "once", "until": "completed"}],
    },
    "parent": {"path": "sh", "args": ["-c", "sleep 500 & setsid sleep 501 & wait"]},
}


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with instance(tmp_path_factory.mktemp("seeing") / "h", up=False) as made:
        made.configure(SEEN)
        made.run("up", "--detach")
        yield made


def test_usage_of_all_counts_children_also_in_sessions_of_their_own(up: Instance):
    number = up.start("parent")["id"]
    until(lambda: usage(up, number)["processes"] == 3)
    found = usage(up, number)
    assert found["threads"] == 3
    assert found["cpu_percent"] >= 0
    assert 0 < found["seconds"] <= 15
    up.run("sd", str(number))


def usage(up: Instance, number: int) -> dict:
    return next(x for x in up.ask("ru") if x["id"] == number)


def test_bytes_on_the_bus_have_rates(up: Instance):
    number = up.start("citizen")["id"]
    up.run("ping", "citizen")
    found = usage(up, number)
    assert found["bus_in"] > 0
    assert found["bus_in_rate"] >= 0
    up.run("sd", str(number))


def test_a_ping_asks_keeper_and_event_loop_of_many_at_once(up: Instance):
    up.start("citizen")
    found = {x["app"]: x for x in up.ask("ping")}
    citizen, sleeper = found["citizen"], found["sleeper"]
    assert citizen["keeper"]["ok"] is sleeper["keeper"]["ok"] is True
    assert citizen["keeper"]["seconds"] < 2
    assert citizen["bus"]["ok"] is True
    assert citizen["seconds"] == citizen["bus"]["seconds"]
    assert sleeper["bus"]["ok"] is None
    assert "ms" in up.run("ping", "citizen", "sleeper").stdout
    up.run("sd", "citizen")


def test_a_ping_of_a_stopped_event_loop_says_which_level_is_silent(up: Instance):
    started = up.start("citizen")
    os.kill(started["pid"], 19)  # SIGSTOP: the process is there, its loop is not
    done = up.run("ping", "citizen", "--json", "--timeout", "0.3", code=1)
    found = json.loads(done.stdout)
    assert found["keeper"]["ok"] is True
    assert found["bus"] == {
        "ok": False, "seconds": None, "age": 0.0, "text": "does not answer within 0.3 s",
    }  # fmt: skip
    assert "viscript why" in done.stderr
    os.kill(started["pid"], 18)
    up.run("sd", "citizen")


def test_a_ping_shows_what_the_apps_own_probe_said_last_and_its_age(up: Instance):
    (up.root / "well").touch()
    number = str(up.start("probed")["id"])
    until(lambda: up.ask("ping", number)["probe"]["ok"])
    assert up.ask("ping", number)["probe"]["age"] < 60
    (up.root / "well").unlink()
    until(lambda: up.ask("why", number)[0]["probe"]["ok"] is False)
    found = json.loads(up.run("ping", number, "--json", code=1).stdout)
    assert found["keeper"]["ok"] is True
    assert found["probe"]["ok"] is False
    assert "its probe (exec) fails" in up.run("why", number).stdout
    up.run("sd", number)


def test_a_ping_of_what_has_ended_fails(up: Instance):
    number = up.start("sh", "true")["id"]
    assert "has ended" in up.run("ping", str(number), code=1).stderr


def test_why_names_what_is_waited_for(up: Instance):
    slow = up.run("start", "--json", "--no-wait", "slow")
    late = up.run("start", "--json", "--no-wait", "late")
    assert slow.returncode == late.returncode == 0
    (found,) = up.ask("why", "late")
    assert found["status"]["state"] == "blocked"
    assert found["waits"] == [{"app": "slow", "until": "ready", "state": "starting", "met": False}]
    assert found["advice"] == ["viscript why slow"]
    shown = up.run("why", "late").stdout
    assert "waits for slow to be ready (it is starting)" in shown
    up.run("sd", "late", "slow")


def test_why_tells_how_it_failed_with_its_last_lines(up: Instance):
    number = up.start_failing("sh", "for i in 1 2 3; do echo line $i; done; exit 127")
    (found,) = up.ask("why", str(number), "-n", "2")
    assert found["status"]["exit"]["code"] == 127
    assert "a command was not found" in found["text"]
    assert found["log"] == ["line 2", "line 3"]
    assert [x["to"] for x in found["events"]][-1] == "failed"
    shown = up.run("why", "sh").stdout
    assert "line 3" in shown
    assert f"try: viscript logs {number}" in shown


def test_why_tells_when_it_is_tried_next(up: Instance):
    number = up.start("crasher")["id"]
    until(lambda: up.launch(number)["state"] == "backoff" and up.launch(number)["restarts"] >= 2)
    until(lambda: "is started again in" in up.run("why", "crasher").stdout)
    up.run("sd", str(number))


def test_why_of_what_never_ran_says_what_is_wrong_with_it(up: Instance):
    assert "does not exist" in up.run("why", "missing").stdout
    assert "never started" in up.run("why", "stubborn").stdout
    assert "nothing is known" in up.run("why", "nobody", code=5).stderr


def test_why_knows_aliases_globs_and_groups_also_of_what_never_ran(up: Instance):
    assert {x["app"] for x in up.ask("why", "sl")} == {"sleeper"}
    assert {x["app"] for x in up.ask("why", "sl", "missing")} == {"sleeper", "missing"}
    assert {x["app"] for x in up.ask("why", "stub*")} == {"stubborn"}
    assert "nothing is known of nobody" in up.run("why", "sl", "nobody", code=5).stderr


def test_an_alias_is_a_name_wherever_one_is_looked_for(up: Instance):
    for words in (["la"], ["status"], ["ru"], ["ping"], ["history"], ["events"], ["wait"]):
        assert "sleeper" in up.run(*words, "sl").stdout
    assert "sleeper" in up.run("la", "sl and state=running").stdout
    assert "sleeper" in up.run("la", "sl:0").stdout
    assert "sleeper" not in up.run("la", "not sl", "--all", code=None).stdout


def test_the_last_events_of_an_app_are_found_behind_those_of_others(up: Instance):
    number = up.start("sh", "exit 0")["id"]
    up.run("restart", "sleeper")
    found = up.run("events", str(number), "-n", "2", "--json").stdout.splitlines()
    told = [json.loads(line) for line in found]
    assert [(x["kind"], x["id"], x["to"]) for x in told][-1] == ("event", number, "exited")
    assert len(told) == 2
    assert "nothing is known of nobody" in up.run("events", "nobody", code=5).stderr


def test_what_was_completed_is_met_for_who_waited_for_it(up: Instance):
    up.run("start", "once")
    up.run("start", "after-once")
    (found,) = up.ask("why", "after-once")
    assert [(x["app"], x["state"], x["met"]) for x in found["waits"]] == [("once", "exited", True)]
    up.run("sd", "after-once")


def test_history_is_of_an_app_a_selector_or_everything(up: Instance):
    number = up.start("sh", "true")["id"]
    told = [(x["from"], x["to"]) for x in up.ask("history", str(number))]
    assert told[0] == ("", "blocked")
    assert told[-1][1] == "exited"
    first = up.ask("history", str(number))[0]
    assert (first["cause"], first["by"], first["app"], first["id"]) == (
        "start",
        "cli",
        "sh",
        number,
    )
    assert {x["app"] for x in up.ask("history", "s*")} <= {"sh", "sleeper", "slow", "stubborn"}
    assert up.ask("history", "daemon")[0]["to"] == "up"
    assert up.ask("history", str(number), "--since", "1h")
    assert "looks like" in up.run("history", "--since", "soon", code=2).stderr


def test_history_names_who_restarted_it(up: Instance):
    number = str(up.start("chatty")["id"])
    up.run("restart", number)
    up.run("sd", number)
    causes = {x["cause"]: x["by"] for x in up.ask("history", number)}
    assert causes["restart"] == causes["stop"] == "cli"
    assert causes["ended"] == ""


def test_top_prints_one_table_where_there_is_no_terminal(up: Instance):
    shown = up.run("top", "--sort", "id").stdout.splitlines()
    assert "launches" in shown[1]
    assert shown[2].split()[:3] == ["ID*", "APP", "STATE"]
    assert shown[3].split()[:3] == ["1", "sleeper", "running"]
    found = up.ask("top", "sleeper")
    assert [x["app"] for x in found["usage"]] == ["sleeper"]
    assert found["host"]["daemon"]["rss"] > 1 << 20
    assert found["host"]["broker"]["cpu_seconds"] > 0
    assert "cannot sort" in up.run("top", "--sort", "size", code=2).stderr


def test_list_shows_what_a_selector_matches(up: Instance):
    assert [x["app"] for x in up.ask("la", "sl*", "and", "state=running")] == ["sleeper"]
    assert [x["id"] for x in up.ask("list", "1")] == [1]
    assert "nothing matches" in up.run("la", "nobody", code=5).stderr


def test_status_of_an_app_is_told_in_full_and_by_the_exit_code(up: Instance):
    shown = up.run("status", "sleeper").stdout
    assert shown.startswith("sleeper (ID 1)  running for ")
    assert f"pid       {up.launch(1)['pid']}" in shown
    number = up.start_failing("sh", "exit 4")
    done = up.run("status", "sh", "sleeper", "--json", code=3)
    assert [(x["id"], x["state"]) for x in json.loads(done.stdout)] == [
        (1, "running"), (number, "failed"),
    ]  # fmt: skip
    assert f"viscript why {number}" in done.stderr
    assert up.ask("status")["events"] == up.ask("history", "-n", "1")[-1]["seq"]
