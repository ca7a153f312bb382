"""The daemon is restarted, ended and killed; what it started never notices."""

import json
import os
import signal
import time
from pathlib import Path

from tests.integration.test_launcher_faults import lines, report
from tests.support.instance import alive, instance, until


def test_a_restart_keeps_the_process_and_every_app(tmp_path):
    with instance(tmp_path / "h") as made:
        chatty, citizen = made.start("chatty"), made.start("citizen")
        before = made.ask("la")
        keepers = {x["id"]: report(made, str(x["id"]))["keeper_pid"] for x in before}
        pid = made.daemon_pid()
        since = json.loads((made.root / "daemon.json").read_text())["since"]
        told = made.ask("daemon", "restart")
        assert told["daemon"]["pid"] == pid == made.daemon_pid()
        assert told["daemon"]["since"] > since
        assert told["launches"] == {"running": len(before)}
        assert {x["id"]: x["pid"] for x in made.ask("la")} == {x["id"]: x["pid"] for x in before}
        assert {n: report(made, str(n))["keeper_pid"] for n in keepers} == keepers
        made.run("ping", str(citizen["id"]))
        assert made.start("sleeper")["id"] == max(keepers) + 1
        made.run("sd", str(chatty["id"]))
        numbers = lines(made, str(chatty["id"]))
        assert numbers == list(range(1, len(numbers) + 1))


def test_what_has_done_its_work_is_not_done_again_after_a_restart(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure({"migrate": {"path": "true", "autostart": True}})
        made.run("up", "--detach")
        made.run("daemon", "restart")
        made.kill_daemon()
        made.run("up", "--detach")
        assert [x["id"] for x in made.ask("la", "--all")] == [1]
        made.kill_daemon()
        (made.root / "state" / "events.jsonl.boot").write_text("another boot")
        made.run("up", "--detach")
        assert [x["id"] for x in made.ask("la", "--all")] == [1, 2]
        made.run("down")
        made.run("up", "--detach")
        assert [x["id"] for x in made.ask("la", "--all")] == [1, 2, 3]


def test_programs_still_get_the_users_mask_after_a_restart(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.run("up", "--detach", umask=0o022)
        made.run("daemon", "restart")
        number = made.start("sh", "umask")["id"]
        assert made.run("logs", str(number)).stdout.strip() == "0022"


def test_a_broken_configuration_is_found_before_the_daemon_is_touched(tmp_path):
    with instance(tmp_path / "h") as made:
        pid, since = made.daemon_pid(), made.ask("status")["daemon"]["since"]
        (made.root / "config.yaml").write_text("apps: [broken")
        assert "config.yaml:2" in made.run("daemon", "restart", code=8).stderr
        assert (made.daemon_pid(), made.ask("status")["daemon"]["since"]) == (pid, since)


def test_it_restarts_also_when_the_broker_cannot_pass_the_order_on(tmp_path):
    with instance(tmp_path / "h") as made:
        app = made.ask("la")[0]["pid"]
        broker = made.ask("status")["broker"]["pid"]
        os.kill(broker, signal.SIGSTOP)
        try:
            made.run("daemon", "stop")
        finally:
            os.kill(broker, signal.SIGCONT)
        assert alive(app)
        made.run("up", "--detach")
        assert made.ask("la")[0]["pid"] == app


def test_stop_ends_the_daemon_alone(tmp_path):
    with instance(tmp_path / "h") as made:
        app, pid = made.ask("la")[0]["pid"], made.daemon_pid()
        assert "take them over" in made.run("daemon", "stop").stdout
        until(lambda: not alive(pid))
        assert alive(app)
        made.run("daemon", "status", code=3)
        made.run("daemon", "restart", code=6)
        assert made.run("daemon", "logs").stdout
        made.run("up", "--detach")
        assert made.ask("la")[0]["pid"] == app
        assert made.ask("daemon", "status")["daemon"]["state"] == "running"


def test_restarted_again_and_again_it_leaves_no_process_behind(tmp_path):
    with instance(tmp_path / "h") as made:
        pid = made.daemon_pid()
        app = made.ask("la")[0]["pid"]
        for _ in range(3):
            made.run("daemon", "restart")
        until(lambda: not _zombies_of(pid))
        assert made.ask("la")[0]["pid"] == app


def _zombies_of(parent: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands, and only names are wanted
        if name.isdecimal():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z" and int(fields[1]) == parent:
                found.append(int(name))
    return found


def test_what_ends_between_two_keepers_has_its_code_and_its_last_lines(tmp_path):
    script = "trap 'seq 1000; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    with instance(tmp_path / "h", up=False) as made:
        made.configure({"brief": {"path": "sh", "args": ["-c", script]}})
        made.run("up", "--detach")
        brief, daemon = made.start("brief"), made.daemon_pid()
        number = str(brief["id"])
        until(lambda: "ready" in made.run("logs", number).stdout)
        os.kill(daemon, signal.SIGSTOP)
        try:
            os.kill(report(made, number)["keeper_pid"], signal.SIGKILL)
            os.kill(brief["pid"], signal.SIGUSR1)
            until(lambda: not alive(brief["pid"]))
        finally:
            os.kill(daemon, signal.SIGCONT)
        until(lambda: made.launch(brief["id"])["ended"])
        ended = made.launch(brief["id"])["exit"]
        assert (ended["code"], ended["signal"]) == (5, None)
        lines_told = made.run("logs", number, "-n", "2000").stdout.split()
        assert [x for x in lines_told if x.isdecimal()] == [str(n) for n in range(1, 1001)]


def test_a_keeper_killed_while_its_program_prints_loses_and_doubles_nothing(tmp_path):
    fast = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); echo line $i; done; echo over; exec sleep 1000"
    with instance(tmp_path / "h", up=False) as made:
        made.configure({"fast": {"path": "sh", "args": ["-c", fast]}})
        made.run("up", "--detach")
        number = str(made.start("fast")["id"])
        log = made.root / "logs" / f"{number}-fast.log"
        for _ in range(3):
            old = report(made, number)["keeper_pid"]
            os.kill(old, signal.SIGKILL)
            until(lambda old=old: report(made, number)["keeper_pid"] != old)
        deadline = time.monotonic() + 30
        while not log.read_text().endswith("over\n"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        told = log.read_text().split("\n")
        assert told == [*(f"line {n}" for n in range(1, 300001)), "over", ""]
