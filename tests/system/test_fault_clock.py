"""The time of day jumps by more than a year, for every process of a home at once, while everything runs."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.instance import BUS_APP, Instance, alive, instance, until

FAR = 400 * 86400  # seconds
APPS = {
    "citizen": {"path": sys.executable, "args": ["citizen.py"], "cwd": ".", "ready": "bus",
                "alive": {"bus": True, "every": "0.1s", "failures": 1}},
    "chatty": {"path": "sh", "args": ["-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"],
               "alive": {"exec": ["true"], "every": "0.1s", "failures": 1}},
    "sleeper": {"path": "sleep", "args": ["1000"]},
    "failing": {"path": "false", "restart": {"policy": "on-failure", "delay": "1s", "cap": "1s"}},
}  # fmt: skip


class Clock:
    def __init__(self, folder: Path) -> None:
        self.file, library = folder / "jump", folder / "clock_jump.so"
        self.set(0)
        source = Path(__file__).with_name("clock_jump.c")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-Wall", "-o", library, source, "-ldl"], check=True
        )
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_JUMP": str(self.file)}

    def set(self, seconds: int) -> None:
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def goes_on(made: Instance, pids: dict[str, int]) -> None:
    """What ran runs, prints and answers; nothing was started again, and new things can be started."""
    number = made.launch_of("chatty")["id"]
    log = made.root / "logs" / f"{number}-chatty.log"
    before = log.stat().st_size
    until(lambda: log.stat().st_size > before + 60)  # for some rounds of the probes
    for app, pid in pids.items():
        found = made.launch_of(app)
        assert (found["state"], found["pid"], found["restarts"]) == ("running", pid, 0), found
    tries = made.launch_of("failing")["restarts"]
    until(lambda: made.launch_of("failing")["restarts"] > tries)
    made.run("ping", "citizen")
    new = made.start("sleeper")
    for command in (
        ("la",),
        ("top", "--once"),
        ("history",),
        ("why", "failing"),
        ("logs", "chatty", "-t"),
    ):
        made.run(*command)
    made.run("sd", str(new["id"]))
    assert not alive(new["pid"])


class Home(Instance):
    def launch_of(self, app: str) -> dict:
        return next(x for x in self.ask("la") if x["app"] == app)


@pytest.mark.parametrize("jumps", [(FAR, -FAR), (-FAR, FAR)])
def test_nobody_is_ended_or_started_again_as_the_time_of_day_jumps(tmp_path, clock, jumps):
    with instance(tmp_path / "h", up=False) as plain:
        made = Home(plain.root)
        made.environment |= clock.environment
        (made.root / "citizen.py").write_text(BUS_APP)
        made.configure(APPS)
        made.run("up", "--detach")
        pids = {app: made.start(app)["pid"] for app in ("citizen", "chatty")}
        made.run("start", "--no-wait", "failing")
        until(lambda: made.launch_of("failing")["state"] == "backoff")
        for seconds in jumps:
            clock.set(seconds)
            goes_on(made, pids)
        state = made.root / "launches" / str(made.launch_of("chatty")["id"]) / "state.json"
        made.kill_daemon()
        os.kill(json.loads(state.read_text())["keeper_pid"], signal.SIGKILL)
        clock.set(0)
        made.run("up", "--detach")
        goes_on(made, pids)
        told = {json.loads(x)["to"] for x in made.run("events", "--json").stdout.splitlines()}
        assert "degraded" not in told
        assert "lost" not in told
        made.run("down")


def test_the_clock_that_jumps_is_the_one_that_everybody_reads(clock):
    clock.set(FAR)
    show = "import time; print(time.time(), time.monotonic(), time.gmtime().tm_year)"
    usual, jumped = (
        subprocess.run(
            [sys.executable, "-c", show],
            env=os.environ | more,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        for more in ({}, clock.environment)
    )
    assert float(jumped[0]) - float(usual[0]) == pytest.approx(FAR, abs=60)
    assert abs(float(jumped[1]) - float(usual[1])) < 60
    assert int(jumped[2]) > int(usual[2])
