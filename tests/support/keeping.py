"""A launch folder and its keepers, without a daemon."""

import json
import os
import signal
import socket
import time
from pathlib import Path

from viscript import processes
from viscript.processes import Fate, Report, Spec


class Folder:
    """A launch folder and its keepers."""

    def __init__(self, root: Path) -> None:
        self.path, self.log, self.ctl = root / "launch", root / "log", root / "ctl"

    def spec(self, *argv: str, **more) -> Spec:
        return Spec(1, 1, argv, "/", self.log, self.ctl, **more)

    def spawn(self, *argv: str, adopt: Report | None = None, **more) -> Report:
        return processes.spawn(self.path, self.spec(*argv, **more), os.environ, adopt)

    def shell(self, script: str, **more) -> Report:
        return self.spawn("/bin/sh", "-c", script, **more)

    def order(self, **order: object) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.ctl))
            client.sendall(json.dumps(order).encode() + b"\n")
            client.recv(1 << 16)

    def until(self, text: str) -> None:
        """It has printed `text`."""
        deadline = time.monotonic() + 15
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def kill_keeper(self, report: Report) -> None:
        os.kill(report.keeper_pid, signal.SIGKILL)
        while processes.look(self.path)[0] is Fate.KEPT:
            time.sleep(0.01)

    def wait(self, state: str, seconds: float = 15) -> Report:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            report = processes.read_report(self.path)
            over = state != "gone" or processes.look(self.path)[0] is not Fate.KEPT
            if report is not None and report.state == state and over:
                return report
            time.sleep(0.02)
        raise AssertionError(f"not {state}: {processes.read_report(self.path)}")

    def end(self) -> None:
        """End what runs in it."""
        report = processes.read_report(self.path)
        if report is not None and report.state not in ("gone", "failed"):
            self.order(do="stop", steps=[])
            self.wait("gone")


def children(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in found]
