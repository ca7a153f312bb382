"""A whole instance of viscript in a home of its own, used as a user does: by its commands."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

BUS_APP = """\
from bus import process

async def main(participant):
    print("on the bus", participant.app, participant.id, flush=True)
    await participant.stopping.wait()
    print("stopping", flush=True)
    return 0

process.run(main)
"""

APPS = {
    "sleeper": {"path": "sleep", "default_args": ["1000"], "autostart": True, "short": ["sl"]},
    "sh": {"path": "sh", "default_args": ["-c"]},
    "stubborn": {
        "path": "sh",
        "args": ["-c", "trap '' TERM; echo stubborn; while :; do sleep 0.2; done"],
    },
    "chatty": {
        "path": "sh",
        "args": ["-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"],
    },
    "crasher": {"path": "sh", "args": ["-c", "sleep 0.4; exit 3"], "restart": "on-failure"},
    "missing": {"path": "bin/nothing", "help": "It is not there."},
    "citizen": {"path": sys.executable, "args": ["citizen.py"], "cwd": ".", "ready": "bus"},
}


class Instance:
    """The home `root`; its config is `root/config.yaml`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.configure(APPS)
        (root / "citizen.py").write_text(BUS_APP)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("VISCRIPT_")}
        self.environment = {**kept, "VISCRIPT_HOME": str(root)}

    def configure(self, apps: dict, **settings: object) -> None:
        text = yaml.safe_dump({"apps": apps, "settings": settings}, sort_keys=False)
        (self.root / "config.yaml").write_text(text)

    def run(self, *arguments: str, code: int | None = 0, **more) -> subprocess.CompletedProcess:
        """A command; its exit code must be `code`, unless that is None."""
        command = [sys.executable, "-P", "-m", "viscript.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=50, check=False,
            **more,
        )  # fmt: skip
        assert code is None or done.returncode == code, (arguments, done, self.daemon_log())
        return done

    def ask(self, *arguments: str):
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, *arguments: str) -> dict:
        return json.loads(self.run("start", "--json", *arguments).stdout)

    def start_failing(self, *arguments: str) -> int:
        """Start what ends badly; its id, when it has ended."""
        self.run("start", *arguments, code=None)
        number = max(x["id"] for x in self.ask("la", "--all") if x["app"] == arguments[0])
        until(lambda: self.launch(number)["ended"])
        return int(number)

    def launch(self, number: int) -> dict:
        return next(x for x in self.ask("la", "--all") if x["id"] == number)

    def daemon_log(self) -> str:
        log = self.root / "logs" / "daemon.log"
        return log.read_text() if log.exists() else ""

    def daemon_pid(self) -> int:
        return self.ask("status")["daemon"]["pid"]

    def kill_daemon(self) -> None:
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))

    def clean_up(self) -> None:
        """Nothing survives a test, whatever state it left."""
        with suppress(subprocess.TimeoutExpired):
            self.run("down", code=None)
        for state in self.root.glob("launches/*/state.json"):
            report = json.loads(state.read_text())
            for pid in (report["keeper_pid"], report["pid"]):
                if pid is not None and belongs(pid, self.root):
                    os.kill(pid, signal.SIGKILL)


def belongs(pid: int, root: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"VISCRIPT_HOME={root}\0".encode() in environment + b"\0"


def alive(pid: int) -> bool:
    """Runs, and is not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.05)


@contextmanager
def instance(root: Path, *, up: bool = True) -> Iterator[Instance]:
    made = Instance(root)
    try:
        if up:
            made.run("up", "--detach")
        yield made
    finally:
        made.clean_up()
