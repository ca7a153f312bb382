"""The zoo at full size: 1 GiB without an end of line, thousands of processes."""

import sys

from tests.integration.test_fault_order import of_home
from tests.support.instance import instance, until

GIB = 1 << 30
FORKS = """
import os, time
for number in range(3000):
    if os.fork() == 0:
        if number % 2:
            os.setsid()
        time.sleep(1000)
print("forked", flush=True)
time.sleep(1000)
"""
CHURN = "echo begins; while :; do true & /bin/true; done"


def test_a_gibibyte_without_an_end_of_line_stays_within_its_bound(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        script = f"head -c {GIB} /dev/zero | tr '\\000' x"
        made.configure({
            "flood": {"path": "sh", "args": ["-c", script], "log": {"size": "4MiB", "files": 2}},
            "sleeper": {"path": "sleep", "args": ["1000"], "autostart": True},
        })  # fmt: skip
        made.run("up", "--detach")
        made.run("start", "--no-wait", "flood")
        number = next(x["id"] for x in made.ask("la") if x["app"] == "flood")
        made.run("wait", str(number), "--for", "ended", "--timeout", "45")
        assert made.launch(number)["exit"]["code"] == 0
        assert made.launch(number)["restarts"] == 0
        kept = sum(x.stat().st_size for x in (made.root / "logs").glob(f"{number}-flood.log*"))
        assert 0 < kept <= 9 << 20
        assert [x["state"] for x in made.ask("la") if x["app"] == "sleeper"] == ["running"]


def test_thousands_of_processes_are_ended_with_what_began_them(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        forks = {"path": sys.executable, "args": ["-c", FORKS], "ready": {"log": "^forked"}}
        made.configure({"forks": forks})
        made.run("up", "--detach")
        launch = made.start("forks")
        assert len(of_home(made.root)) > 3000
        made.run("sd", str(launch["id"]))
        assert made.launch(launch["id"])["state"] == "exited"
        until(lambda: len(of_home(made.root)) < 20)


def test_what_begins_processes_without_end_is_ended_with_the_last_of_them(tmp_path):
    with instance(tmp_path / "h", up=False) as made:
        made.configure(
            {"churn": {"path": "sh", "args": ["-c", CHURN], "ready": {"log": "^begins"}}}
        )
        made.run("up", "--detach")
        launch = made.start("churn")
        made.run("sd", str(launch["id"]))
        until(lambda: not of_home(made.root, "churn"))
