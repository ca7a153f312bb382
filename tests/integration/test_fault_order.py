"""Everything is killed in an order nobody has thought of. `VISCRIPT_FAULT_SEED=N` plays one again.

The exit code of a program is told by the kernel to those who watch it at that moment: its keeper, and the
daemon. Only what ends while both are dead ends unseen.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.instance import Instance, alive, instance, until
from viscript.generation import UNSEEN

Json = dict[str, Any]

SEED = int(os.environ.get("VISCRIPT_FAULT_SEED") or random.randrange(1 << 32))
FAULTS = int(os.environ.get("VISCRIPT_FAULTS", "7"))
COUNT = 'i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.02; done'
APPS = {
    "chatty": {"path": "sh", "args": ["-c", COUNT]},
    "sleeper": {"path": "sleep", "args": ["1000"]},
    "ends": {"path": "sh", "args": ["-c", "while ! [ -e $0 ]; do sleep 0.05; done; exit 42"]},
}


def of_home(root: Path, app: str | None = None) -> list[int]:
    """Pids of all that has this home in its environment; of an app, only those that are no child of it."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        wanted = [f"VISCRIPT_HOME={root}".encode()]
        wanted += [f"VISCRIPT_APP={app}".encode()] if app else []
        if all(word in environment for word in wanted) and alive(int(entry.name)):
            found[int(entry.name)] = parent
    return [pid for pid, parent in found.items() if app is None or parent not in found]


class Chaos:
    """Kills one thing at a time, and sometimes the next before anything was mended."""

    def __init__(self, made: Instance, dice: random.Random) -> None:
        self.made, self.dice = made, dice
        self.unwatched = False

    def look_at(self, launch: Json) -> None:
        """Whether anybody is there who would see this launch end, should it do so now."""
        try:
            report = json.loads(
                (self.made.root / f"launches/{launch['id']}/state.json").read_text()
            )
        except FileNotFoundError:  # it is over, and written down
            return
        info = json.loads((self.made.root / "daemon.json").read_text())
        if not alive(info["pid"]) and not alive(report["keeper_pid"]):
            self.unwatched = True
        elif alive(launch["pid"]):
            self.unwatched = False

    def daemon(self) -> None:
        info = json.loads((self.made.root / "daemon.json").read_text())
        if alive(info["pid"]):
            os.kill(info["pid"], signal.SIGKILL)

    def keeper(self) -> None:
        states = sorted(self.made.root.glob("launches/*/state.json"))
        report = json.loads(self.dice.choice(states).read_text())
        if alive(report["keeper_pid"]):
            os.kill(report["keeper_pid"], signal.SIGKILL)

    def broker(self) -> None:
        report = json.loads((self.made.root / "launches" / "broker" / "state.json").read_text())
        if report["pid"] and alive(report["pid"]):
            os.kill(report["pid"], signal.SIGKILL)

    def command(self) -> None:
        words = self.dice.choice((("start", "sleeper"), ("sd", "sleeper", "--yes"), ("la",)))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "viscript.cli", *words], env=self.made.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(self.dice.uniform(0.05, 0.5))  # at any state: the moment is the point
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def mend(self) -> None:
        """What a user does: `up`, until all answers."""
        made, deadline = self.made, time.monotonic() + 20
        while made.run("la", code=None).returncode != 0:
            assert time.monotonic() < deadline, made.daemon_log()
            made.run("up", "--detach", code=None)


def test_killed_in_any_order_nothing_is_lost_doubled_or_left(tmp_path, capfd):
    with capfd.disabled():
        print(f"VISCRIPT_FAULT_SEED={SEED}")
    dice = random.Random(SEED)
    go = tmp_path / "go"
    with instance(tmp_path / "h", up=False) as made:
        made.configure(APPS)
        made.run("up", "--detach")
        chatty, ends = made.start("chatty"), made.start("ends", str(go))
        chaos = Chaos(made, dice)
        told = []
        for number in range(FAULTS):
            fault = dice.choice((chaos.daemon, chaos.keeper, chaos.broker, chaos.command))
            told.append(fault.__name__)
            fault()
            if number == FAULTS // 2:
                go.touch()  # it ends among all this
            chaos.look_at(ends)
            if dice.random() < 0.5:
                chaos.mend()
                told.append("mend")
            assert of_home(made.root, "chatty") == [chatty["pid"]], told
        chaos.mend()
        until(lambda: made.launch(ends["id"])["ended"])
        how = made.launch(ends["id"])["exit"]
        assert how["code"] == 42 or (chaos.unwatched and how["how"] == UNSEEN), told

        def consistent() -> bool:
            runs = [x["pid"] for x in made.ask("la") if x["state"] == "running"]
            apps = [pid for app in APPS for pid in of_home(made.root, app)]
            return sorted(runs) == sorted(apps)

        until(consistent)
        made.run("sd", str(chatty["id"]))
        text = made.run("logs", str(chatty["id"]), "-n", "100000").stdout
        numbers = [int(line.split()[1]) for line in text.splitlines()]
        assert numbers == list(range(1, len(numbers) + 1)), told
        made.run("down")
        until(lambda: not of_home(made.root))
