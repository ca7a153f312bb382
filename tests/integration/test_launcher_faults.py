"""What happens when parts are killed: nothing of the user's is lost, nothing runs twice."""

import json
import os
import signal
import socket
import stat

import pytest

from tests.support.instance import APPS, Instance, alive, instance, until


def lines(made: Instance, target: str) -> list[int]:
    text = made.run("logs", target, "-n", "100000").stdout
    return [int(x.split()[1]) for x in text.splitlines()]


def report(made: Instance, launch: str) -> dict:
    return json.loads((made.root / "launches" / launch / "state.json").read_text())


def test_nothing_is_started_beside_what_the_database_does_not_know(tmp_path):
    with instance(tmp_path / "h") as up:
        pid = up.start("sleeper")["pid"]
        up.kill_daemon()
        kept = up.root / "kept"
        kept.mkdir()
        for file in (up.root / "state").glob("viscript.db*"):
            file.rename(kept / file.name)
        done = up.run("up", "--detach", code=9)
        assert str(pid) in done.stderr
        assert "viscript down" in done.stderr
        assert alive(pid)
        for file in (up.root / "state").glob("viscript.db*"):
            file.unlink()
        for file in kept.iterdir():
            file.rename(up.root / "state" / file.name)
        up.run("up", "--detach")
        assert pid in [x["pid"] for x in up.ask("la")]


@pytest.mark.parametrize("keeper_lives", [True, False])
def test_down_ends_what_the_database_does_not_know(tmp_path, keeper_lives):
    with instance(tmp_path / "h") as up:
        launch = up.start("stubborn")
        up.kill_daemon()
        for file in (up.root / "state").glob("viscript.db*"):
            file.unlink()
        state = up.root / "launches" / str(launch["id"]) / "state.json"
        if not keeper_lives:
            os.kill(json.loads(state.read_text())["keeper_pid"], signal.SIGKILL)
        up.run("down")
        assert not alive(launch["pid"])
        up.run("up", "--detach")


def test_a_killed_daemon_takes_nothing_along_and_the_next_takes_over(tmp_path):
    with instance(tmp_path / "h") as made:
        chatty, citizen = made.start("chatty"), made.start("citizen")
        before = {x["id"]: x["pid"] for x in made.ask("la")}
        made.kill_daemon()
        assert "has ended without" in made.run("la", code=6).stderr
        made.run("status", code=3)
        seen = len(lines(made, "chatty"))
        until(lambda: len(lines(made, "chatty")) > seen + 20)

        made.run("up", "--detach")
        launches = made.ask("la")
        assert {x["id"]: x["pid"] for x in launches} == before
        assert {x["state"] for x in launches} == {"running"}
        made.run("ping", str(citizen["id"]))
        assert made.start("sleeper")["id"] == max(before) + 1
        made.run("sd", str(chatty["id"]), str(citizen["id"]))
        numbers = lines(made, "chatty")
        assert numbers == list(range(1, len(numbers) + 1))


def test_what_ended_without_a_daemon_is_known_with_its_code(tmp_path):
    with instance(tmp_path / "h") as made:
        number = made.start("sh", "sleep 4; exit 42")["id"]
        again = made.start("crasher")["id"]
        made.kill_daemon()
        until(lambda: report(made, str(number))["state"] == "gone")
        made.run("up", "--detach")
        assert made.launch(number)["exit"]["code"] == 42
        until(lambda: made.launch(again)["restarts"] >= 1)


def test_what_its_keeper_stopped_without_a_daemon_has_not_ended_by_itself(tmp_path):
    with instance(tmp_path / "h") as made:
        script = "trap 'echo told; sleep 2; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
        number = made.start("sh", script)["id"]
        until(lambda: "ready" in made.run("logs", str(number), code=None).stdout)
        made.run("sd", "--no-wait", str(number))
        until(lambda: "told" in made.run("logs", str(number), code=None).stdout)
        made.kill_daemon()
        until(lambda: report(made, str(number))["state"] == "gone")
        made.run("up", "--detach")
        ended = {"code": 7, "signal": None, "how": "stopped"}
        assert made.launch(number)["exit"] == ended
        assert made.ask("job", "ls")[-1]["state"] == "done"


def test_what_was_stopped_on_purpose_is_not_started_by_the_next_up(tmp_path):
    with instance(tmp_path / "h") as made:
        made.run("sd", "sleeper")
        made.kill_daemon()
        made.run("up", "--detach")
        assert [x["state"] for x in made.ask("la")] == ["exited"]


def test_down_works_when_the_daemon_was_killed(tmp_path):
    with instance(tmp_path / "h") as made:
        made.start("citizen")
        pids = [x["pid"] for x in made.ask("la")] + [report(made, "broker")["pid"]]
        made.kill_daemon()
        out = made.run("down").stdout
        assert "citizen" in out
        assert not any(alive(pid) for pid in pids)


def test_the_next_up_uses_the_same_config(tmp_path):
    with instance(tmp_path / "h") as made:
        made.run("down")
        other = made.root / "other.yaml"
        (made.root / "config.yaml").rename(other)
        made.run("up", "--detach", "--config", str(other))
        made.kill_daemon()
        made.run("up", "--detach")
        assert made.ask("status")["daemon"]["config"] == str(other)
        made.kill_daemon()
        other.write_text("apps: [broken")
        made.run("down")


def test_what_runs_is_taken_over_also_when_its_configuration_is_broken_meanwhile(tmp_path):
    with instance(tmp_path / "h") as made:
        (before,) = made.ask("la")
        made.configure(APPS | {"late": {"path": "sleep", "args": [1000]}})
        made.start("late")
        right = (made.root / "config.yaml").read_text()
        for _ in range(2):  # what was kept is not replaced by what is broken
            made.kill_daemon()
            (made.root / "config.yaml").write_text("apps: [broken")
            said = made.run("up", "--detach").stderr
            assert "config.yaml:2:1: not YAML" in said
            assert "in force last" in said
            assert {x["app"]: x["state"] for x in made.ask("la")} == {
                "sleeper": "running",
                "late": "running",
            }
            assert made.ask("la")[0]["pid"] == before["pid"]
            made.run("restart", "late")
            made.run("config", "plan", code=8)
        (made.root / "config.yaml").write_text(right)
        made.run("config", "plan")
        (made.root / "config.yaml").write_text("apps: [broken")
        made.run("down")
        assert "broken" not in made.run("up", "--detach", code=8).stdout


def test_down_works_when_daemon_and_broker_were_killed(tmp_path):
    with instance(tmp_path / "h") as made:
        made.start("citizen")
        pids = [x["pid"] for x in made.ask("la")]
        broker = report(made, "broker")
        made.kill_daemon()
        os.kill(broker["keeper_pid"], signal.SIGKILL)
        os.kill(broker["pid"], signal.SIGKILL)
        made.run("down")
        assert not any(alive(pid) for pid in pids)


def kill_everything(made: Instance) -> None:
    """As a power cut would."""
    made.kill_daemon()
    reports = [json.loads(x.read_text()) for x in made.root.glob("launches/*/state.json")]
    for pid in [r["keeper_pid"] for r in reports] + [r["pid"] for r in reports]:
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not alive(pid))


def test_what_ended_unseen_is_told_so_and_never_as_running(tmp_path):
    with instance(tmp_path / "h") as made:
        endpoint = made.ask("status")["broker"]["endpoint"]
        number = made.start("chatty")["id"]
        kill_everything(made)
        out = made.run("up", "--detach").stdout
        assert f"chatty (ID {number}) running" not in out
        assert f"chatty (ID {number}) failed: exit unknown, nobody saw it end" in out
        assert made.ask("status")["broker"]["endpoint"] == endpoint


def test_a_port_that_is_another_programs_meanwhile_is_replaced(tmp_path):
    with instance(tmp_path / "h") as made, socket.socket() as other:
        host, port = made.ask("status")["broker"]["endpoint"].removeprefix("tcp://").split(":")
        kill_everything(made)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, int(port)))
        other.listen()
        made.run("up", "--detach")
        assert not made.ask("status")["broker"]["endpoint"].endswith(f":{port}")
        assert made.start("citizen")["state"] == "running"


def test_programs_get_the_users_mask_and_our_files_are_private(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.run("up", "--detach", umask=0o022)
        number = made.start("sh", "umask")["id"]
        assert made.run("logs", str(number)).stdout.strip() == "0022"
        assert stat.S_IMODE((made.root / "daemon.json").stat().st_mode) == 0o600


def test_a_killed_broker_comes_back_with_ids_and_apps_intact(tmp_path):
    with instance(tmp_path / "h") as made:
        citizen = made.start("citizen")
        before, status = made.ask("la"), made.ask("status")
        os.kill(status["broker"]["pid"], signal.SIGKILL)
        until(lambda: made.ask("status")["broker"]["pid"] != status["broker"]["pid"])
        after = made.ask("status")["broker"]
        assert after["endpoint"] == status["broker"]["endpoint"]
        assert after["key"] == status["broker"]["key"]
        until(lambda: made.run("ping", str(citizen["id"]), code=None).returncode == 0)
        assert [(x["id"], x["pid"]) for x in made.ask("la")] == [
            (x["id"], x["pid"]) for x in before
        ]
        assert made.start("citizen")["id"] == citizen["id"] + 1


def test_a_killed_keeper_is_replaced_and_the_program_goes_on(tmp_path):
    with instance(tmp_path / "h") as made:
        chatty = made.start("chatty")
        folder = str(chatty["id"])
        old = report(made, folder)["keeper_pid"]
        os.kill(old, signal.SIGKILL)
        until(lambda: report(made, folder)["keeper_pid"] != old)
        seen = len(lines(made, folder))
        until(lambda: len(lines(made, folder)) > seen + 20)
        assert made.launch(chatty["id"])["pid"] == chatty["pid"]
        made.run("sd", folder)
        assert not alive(chatty["pid"])
        numbers = lines(made, folder)
        assert numbers == list(range(1, len(numbers) + 1))


def test_keepers_and_daemon_killed_together_leave_nothing_running_twice(tmp_path):
    with instance(tmp_path / "h") as made:
        pid = made.ask("la")[0]["pid"]
        keeper = report(made, "1")["keeper_pid"]
        made.kill_daemon()
        os.kill(keeper, signal.SIGKILL)
        made.run("up", "--detach")
        assert [(x["id"], x["pid"], x["state"]) for x in made.ask("la")] == [(1, pid, "running")]
        made.run("sd", "1")
        assert not alive(pid)


def test_sigterm_ends_the_daemon_alone(tmp_path):
    with instance(tmp_path / "h") as made:
        pid, daemon = made.ask("la")[0]["pid"], made.daemon_pid()
        os.kill(daemon, signal.SIGTERM)
        until(lambda: not alive(daemon))
        assert alive(pid)
        made.run("up", "--detach")
        assert made.ask("la")[0]["pid"] == pid


def test_key_files_that_others_can_read_are_refused(tmp_path):
    with instance(tmp_path / "h") as made:
        key = made.root / "keys" / "cli.key"
        key.chmod(0o644)
        assert f"chmod 600 {key}" in made.run("la", code=4).stderr
        key.chmod(0o600)
        made.run("down")
        broker = made.root / "keys" / "broker.key"
        broker.write_text("rubbish")
        assert str(broker) in made.run("up", "--detach", code=4).stderr
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_key_that_is_not_allowed_is_told_so(tmp_path):
    with instance(tmp_path / "h") as made:
        key = made.root / "keys" / "cli.key"
        kept = key.read_bytes()
        made.run("start", "sleeper")
        # The second launch's key may connect, but not command the daemon.
        key.write_bytes((made.root / "keys" / "apps" / "sleeper-2.key").read_bytes())
        assert made.run("la", code=4).stderr
        made.run("sd", "2", code=4)
        key.write_bytes(kept)
        made.run("sd", "2")
        key.write_bytes((made.root / "keys" / "apps" / "sleeper-2.key").read_bytes())
        assert "does not allow the key" in made.run("la", code=4).stderr
        key.write_bytes(kept)
