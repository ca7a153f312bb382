"""The launcher as a user meets it: real daemon, broker and programs."""

import json
import os
import socket
import stat
import time
from pathlib import Path

import pytest

from tests.support.instance import APPS, Instance, alive, instance, until


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """One instance for tests that only add launches to it."""
    with instance(tmp_path_factory.mktemp("home") / "h") as made:
        yield made


def test_up_starts_what_is_marked_autostart(up: Instance):
    first = up.ask("la")[0]
    assert (first["id"], first["app"], first["state"]) == (1, "sleeper", "running")
    assert alive(first["pid"])
    assert {"id", "app", "state", "pid", "key", "since", "exit"} <= first.keys()
    assert len(first["key"]) == 40


def test_status_names_daemon_and_broker(up: Instance):
    status = up.ask("status")
    assert alive(status["daemon"]["pid"])
    assert alive(status["broker"]["pid"])
    assert status["broker"]["endpoint"].startswith("tcp://127.0.0.1:")
    assert len(status["broker"]["key"]) == 40
    assert str(status["daemon"]["pid"]) in up.run("status").stdout


def test_user_arguments_are_added_and_kept_as_they_are(up: Instance):
    started = up.start("sh", 'printf "%s|" "$0" "$@"', "--json", "-x", "Ab C", "--", "--home")
    assert started["state"] == "exited"
    log = up.run("logs", str(started["id"])).stdout
    assert log == "--json|-x|Ab C|--|--home|"


def test_ids_rise_by_one_and_s_is_start(up: Instance):
    first = up.start("sl")
    up.run("s", "sleeper")
    assert up.ask("la")[-1]["id"] == first["id"] + 1
    up.run("sd", str(first["id"]), str(first["id"] + 1))


def test_the_environment_holds_paths_and_addresses_and_no_secret(up: Instance):
    number = up.start("sh", "env")["id"]
    log = up.run("logs", str(number), "-n", "1000").stdout
    told = dict(x.split("=", 1) for x in log.splitlines() if x.startswith("VISCRIPT_"))
    assert told.keys() == {
        "VISCRIPT_HOME", "VISCRIPT_RUN", "VISCRIPT_BROKER", "VISCRIPT_BROKER_KEY",
        "VISCRIPT_KEY_FILE", "VISCRIPT_APP", "VISCRIPT_ID", "VISCRIPT_LAUNCHER", "VISCRIPT_STATE",
        "VISCRIPT_MARK", "VISCRIPT_INSTANCE",
    }  # fmt: skip
    assert told["VISCRIPT_ID"] == str(number)
    key_file = Path(told["VISCRIPT_KEY_FILE"])
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert json.loads(key_file.read_text())["secret"] not in log
    assert Path(told["VISCRIPT_STATE"]).is_dir()


def test_a_signal_client_is_pinged_measured_and_shut_down_over_the_bus(up: Instance):
    started = up.start("citizen")
    number = str(started["id"])
    assert started["state"] == "running"
    assert up.ask("ping", number)["seconds"] < 1
    assert "ping time" in up.run("ping", "citizen").stdout
    usage = up.ask("ru", number)[0]
    assert usage["bus_in"] > 0
    assert usage["bus_out"] > 0
    assert usage["rss"] > 1 << 20
    assert usage["threads"] >= 1
    assert usage["open_files"] > 2
    assert usage["cpu_seconds"] > 0
    up.run("sd", number)
    ended = up.launch(started["id"])
    assert ended["state"] == "exited"
    assert ended["exit"] == {"code": 0, "signal": None, "how": "shut down over the bus"}
    assert "stopping" in up.run("logs", number).stdout


def test_a_program_that_is_no_signal_client_is_measured_and_stopped_by_its_process(up: Instance):
    started = up.start("sleeper")
    assert "not on the bus" in up.run("ping", str(started["id"])).stdout
    usage = up.ask("ru", str(started["id"]))[0]
    assert usage["rss"] > 0
    assert usage["bus_in"] is None
    assert "iB" in up.run("ru", str(started["id"])).stdout
    ended = json.loads(up.run("sd", "--json", str(started["id"])).stdout)[0]
    assert ended["exit"]["signal"] == "SIGTERM"
    assert not alive(started["pid"])


def test_a_program_that_ignores_sigterm_is_killed(up: Instance):
    started = up.start("stubborn")
    until(lambda: "stubborn" in up.run("logs", "stubborn").stdout)
    done = up.run("sd", "stubborn")
    assert "SIGKILL" in done.stdout
    assert not alive(started["pid"])


def test_what_ends_by_itself_is_seen_within_a_second(up: Instance):
    code = up.start("sh", "sleep 0.6; exit 7")["id"]
    killed = up.start("sleeper")
    os.kill(killed["pid"], 9)
    until(lambda: up.launch(killed["id"])["state"] == "failed", 1.5)
    assert up.launch(killed["id"])["exit"] == {
        "code": None, "signal": "SIGKILL", "how": "by itself",
    }  # fmt: skip
    until(lambda: (up.launch(code)["exit"] or {}).get("code") == 7, 2)


def test_children_do_not_outlive_their_program(up: Instance):
    number = up.start("sh", "sleep 777 & echo $!; setsid sleep 778 & echo $!; sleep 0.5")["id"]
    pids = [int(x) for x in up.run("logs", str(number)).stdout.split()]
    until(lambda: up.launch(number)["ended"] is not None)
    assert not any(alive(pid) for pid in pids)


def test_what_cannot_be_executed_is_reported_as_itself(up: Instance):
    script = up.root / "bad"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    up.configure({**APPS, "bad": {"path": "bad"}, "folder": {"path": "logs/"}})
    done = up.run("start", "bad", code=1)
    assert "No such file" in done.stderr
    assert "cannot be run" in done.stderr
    up.configure(APPS)


def test_a_crashing_program_is_started_again_with_the_same_id(up: Instance):
    number = up.start("crasher")["id"]
    until(lambda: up.launch(number)["restarts"] >= 2)
    up.run("sd", str(number))
    assert up.launch(number)["state"] == "exited"
    restarts = up.launch(number)["restarts"]
    time.sleep(1)
    assert up.launch(number)["restarts"] == restarts


def test_logs_are_followed(up: Instance):
    number = str(up.start("chatty")["id"])
    assert "line" in up.run("logs", number, "-n", "1").stdout
    assert up.ask("logs", number, "-n", "2")["lines"]
    up.run("sd", number)


def test_control_sequences_stay_in_a_pipe(up: Instance):
    number = str(up.start("sh", r"printf 'a\033[31mb'")["id"])
    assert up.run("logs", number).stdout == "a\033[31mb"


def test_two_launches_of_an_app_have_keys_of_their_own(up: Instance):
    first, second = up.start("sleeper"), up.start("sleeper")
    assert first["key"] != second["key"]
    done = up.run("sd", "sleeper", code=9)
    assert str(first["id"]) in done.stderr
    up.run("sd", str(first["id"]), str(second["id"]))


def test_many_are_shut_down_at_once(up: Instance):
    ids = [str(up.start("sleeper")["id"]) for _ in range(12)]
    began = time.monotonic()
    assert len(json.loads(up.run("sd", "--json", *ids).stdout)) == 12
    assert time.monotonic() - began < 10


def test_a_second_up_on_the_same_home_is_refused(up: Instance):
    done = up.run("up", "--detach", code=9)
    assert str(up.root) in done.stderr
    assert up.ask("status")["daemon"]["pid"]


def test_down_ends_everything_and_leaves_only_state_and_logs(tmp_path):
    with instance(tmp_path / "h") as made:
        made.start("citizen")
        made.start("sh", "trap '' HUP; sleep 900")
        pids = [x["pid"] for x in made.ask("la")]
        status = made.ask("status")
        pids += [status["daemon"]["pid"], status["broker"]["pid"]]
        pids += [
            json.loads(p.read_text())["keeper_pid"] for p in made.root.glob("launches/*/state.json")
        ]
        out = made.run("down").stdout
        assert "sleeper (ID 1) has ended" in out
        until(lambda: not any(alive(pid) for pid in pids), 3)
        host, port = status["broker"]["endpoint"].removeprefix("tcp://").split(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
        left = [p for p in made.root.rglob("*") if not p.is_dir()]
        assert all(stat.S_ISREG(p.lstat().st_mode) for p in left)
        assert not list(made.root.glob("launches/*/*"))
        made.run("down", code=6)


def test_ids_are_not_used_again_after_down(tmp_path):
    with instance(tmp_path / "h") as made:
        last = made.start("sleeper")["id"]
        made.run("down")
        made.run("up", "--detach")
        assert [x["id"] for x in made.ask("la")] == [last + 1]
        assert made.start("sleeper")["id"] == last + 2


def test_apps_start_after_what_they_need_and_stop_before_it(tmp_path):
    apps = {
        "late": {"path": "sleep", "args": ["1000"], "after": ["early"], "autostart": True},
        "early": {"path": "sleep", "args": ["1000"], "autostart": True},
    }
    with instance(tmp_path / "h", up=False) as made:
        made.configure(apps)
        made.run("up", "--detach")
        ids = {x["app"]: x["id"] for x in made.ask("la")}
        assert ids["early"] < ids["late"]
        out = made.run("down").stdout
        assert out.index("late") < out.index("early")


def test_up_tells_what_could_not_be_started_and_runs_the_rest(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure({**APPS, "missing": {"path": "bin/nothing", "autostart": True}})
        done = made.run("up", "--detach", code=1)
        assert "does not exist" in done.stdout
        assert [x["app"] for x in made.ask("la")] == ["sleeper"]


def test_a_taken_port_is_said_and_nothing_is_left_running(tmp_path):
    with socket.socket() as taken, instance(tmp_path / "h", up=False) as made:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        made.configure(APPS, broker={"endpoint": endpoint})
        done = made.run("up", "--detach", code=9)
        assert endpoint in done.stderr
        made.run("status", code=3)
        reports = made.root.glob("launches/*/state.json")
        assert not any(alive(json.loads(p.read_text())["keeper_pid"]) for p in reports)
        taken.close()
        made.run("up", "--detach")
        assert made.ask("status")["broker"]["endpoint"] == endpoint


def test_two_homes_do_not_know_each_other(tmp_path):
    with instance(tmp_path / "one") as one, instance(tmp_path / "two") as two:
        assert one.ask("status")["broker"]["endpoint"] != two.ask("status")["broker"]["endpoint"]
        one.start("sleeper")
        assert len(two.ask("la", "--home", str(two.root))) == 1


def test_a_home_with_a_long_path_works(tmp_path):
    with instance(tmp_path / ("long" * 25)) as made:
        assert made.start("citizen")["state"] == "running"
        number = made.start("sh", 'echo "$VISCRIPT_RUN"')["id"]
        run = Path(made.run("logs", str(number)).stdout.strip())
        assert len(str(run)) < 80
        assert stat.S_IMODE(run.stat().st_mode) == 0o700
        made.run("down")
        assert not run.exists()


def test_what_is_added_to_the_brokers_file_stays_over_down_and_up(tmp_path):
    with instance(tmp_path / "h") as made:
        made.run("down")
        path = made.root / "broker.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "monitor": "127.0.0.1:0"}))
        made.run("up", "--detach")
        assert json.loads(path.read_text())["monitor"] == "127.0.0.1:0"
        log = made.root / "logs" / "broker.log"
        until(lambda: "http://127.0.0.1:" in log.read_text())
