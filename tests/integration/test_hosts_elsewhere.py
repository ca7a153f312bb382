"""What is asked of another host: its configuration, its audit log, its roles."""

import json
import os
import signal
import subprocess
import sys

import pytest

from bus import sockets
from tests.support.cluster import QUIET, cluster
from tests.support.instance import until
from tests.support.terminal import terminal


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """`beta` grants everything to the people of the first host."""
    with cluster(tmp_path_factory.mktemp("c")) as made:
        made.beta = made.join("beta", options=("--grant", "admin"))
        made.gamma = made.join("gamma")
        yield made


def test_the_configuration_of_another_host_is_shown_and_checked(pair):
    shown = pair.first.ask("config", "show", "sleeper", "--host", "beta")
    assert list(shown["apps"]) == ["sleeper"]
    assert pair.first.run("config", "show", "--host", "beta").stdout.startswith(
        f"# {pair.beta.root}/config.yaml"
    )
    assert pair.first.ask("config", "check", "--host", "beta")["ok"] is True
    file = pair.beta.root / "config.yaml"
    before = file.read_text()
    file.write_text("apps: {a: {pfad: x}}\n")
    try:
        refused = pair.first.run("config", "check", "--host", "beta", code=8)
        assert refused.stdout == pair.beta.run("config", "check", code=8).stdout
        assert f"{file}:1:" in refused.stdout
    finally:
        file.write_text(before)


def test_a_file_of_ones_own_is_not_meant_of_another_host(pair):
    assert "--host" in pair.first.run("config", "check", "x.yaml", "--host", "beta", code=2).stderr


def test_a_change_is_planned_and_applied_on_another_host(pair):
    number = json.loads(pair.first.run("start", "--json", "beta:sleeper").stdout)["id"]
    pair.beta.configure({**QUIET, "sleeper": {**QUIET["sleeper"], "default_args": ["2000"]}})
    planned = pair.first.ask("config", "plan", "--host", "beta")
    assert [x["does"] for x in planned["apps"] if x["app"] == "sleeper"] == ["restart"]
    pair.first.run("config", "apply", "--yes", "--host", "beta")
    restarted = pair.beta.launch(number)
    assert (restarted["state"], restarted["restarts"]) == ("running", 1)


def test_what_was_asked_of_another_host_is_read_there(pair):
    pair.first.run("start", "beta:sleeper")
    lines = pair.first.run("audit", "--host", "beta", "-n", "1000", "--json").stdout.splitlines()
    here = pair.beta.run("audit", "--json", "-n", "1000").stdout.splitlines()
    assert lines == here[: len(lines)]
    started = [json.loads(x) for x in lines if json.loads(x)["command"] == "viscript.start"][-1]
    assert started["name"].endswith(":cli")


def test_more_lines_than_fit_into_an_answer_are_read_in_pages(pair):
    log = pair.beta.root / "state" / "audit.jsonl"
    log = next(pair.beta.root.rglob(log.name))
    entry = {"ts": 1.0, "key": "k", "name": "many", "command": "viscript.sd", "asked": "x" * 2000}
    with log.open("a") as file:
        for number in range(950):
            file.write(json.dumps({**entry, "ts": float(number)}) + "\n")
    found = pair.first.run("audit", "--host", "beta", "--key", "many", "-n", "900", "--json")
    times = [json.loads(line)["ts"] for line in found.stdout.splitlines()]
    assert times == [float(number) for number in range(50, 950)]


def test_roles_of_another_host_are_given_and_taken_there(pair):
    key = sockets.new_keypair().public
    pair.first.run("role", "set", key, "view", "--host", "beta")
    assert key in {x["key"] for x in pair.beta.ask("role", "ls")}
    assert key not in {x["key"] for x in pair.first.ask("role", "ls")}
    pair.first.run("role", "rm", key, "--host", "beta")
    assert pair.first.ask("role", "ls", "--host", "beta") == []


@pytest.mark.parametrize(
    "words", [("config", "show"), ("config", "check"), ("audit",), ("role", "ls")]
)
def test_who_may_only_operate_there_gets_none_of_it(pair, words):
    assert "viscript role set" in pair.first.run(*words, "--host", "gamma", code=4).stderr
    assert pair.first.run(*words, "--host", "nowhere", code=5).stderr


def test_a_command_runs_on_another_host_with_its_output_and_exit_code_here(pair):
    done = pair.first.run(
        "run",
        "--host",
        "beta",
        "--name",
        "once",
        "sh",
        "-c",
        "pwd; echo $VISCRIPT_HOME; printf end; exit 5",
        code=5,
    )
    assert done.stdout == f"{pair.beta.root}\n{pair.beta.root}\nend"
    refused = pair.first.run("run", "--host", "gamma", "true", code=4)
    assert "viscript role set" in refused.stderr


def test_control_c_shuts_down_what_runs_on_another_host(pair):
    command = [sys.executable, "-P", "-m", "viscript.cli", "run", "--host", "beta", "--name", "far"]
    running = subprocess.Popen(
        [*command, "sh", "-c", "echo begun; sleep 1000"],
        env=pair.first.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout.readline() == "begun\n"
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(30) == 130
    running.communicate()
    assert all(x["app"] != "far" or x["ended"] for x in pair.beta.ask("la", "--all"))


def test_text_is_typed_into_a_terminal_of_another_host_and_attach_says_where_it_works(pair):
    script = "echo ready; read line; echo got $line; sleep 1000"
    talker = {"path": "sh", "args": ["-c", script], "terminal": True, "autostart": False}
    pair.beta.configure({**QUIET, "talker": talker})
    number = json.loads(pair.first.run("start", "--json", "beta:talker").stdout)["id"]
    until(lambda: "ready" in pair.first.run("logs", "beta:talker").stdout)
    pair.first.run("send", str(number), "hello")
    until(lambda: "got hello" in pair.first.run("logs", "beta:talker").stdout)
    command = [sys.executable, "-P", "-m", "viscript.cli", "attach", str(number)]
    with terminal(command, pair.first.environment, width=300) as shown:
        assert shown.ended() == 2
        assert f"viscript logs -f beta:{number}" in shown.text
