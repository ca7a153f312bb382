"""The real broker as a process, in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bus import Address, KeyPair, keystore
from bus.access import AccessList
from bus.settings import BrokerSettings, save
from bus.signals import AccessEntry
from tests.support.stack import free_port

PATIENCE = 15.0


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Poll until `condition` holds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.01)


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `bus-broker` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "bus.cli", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


class Broker:
    """`keys` are the participants in its access list, by name."""

    def __init__(self, folder: Path, **roles: str) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.keys: dict[str, KeyPair] = {}
        self._entries = AccessList()
        own = keystore.create(folder / "broker.key")
        self.address = Address(f"tcp://127.0.0.1:{free_port()}", own.public)
        save(
            folder / "broker.json",
            BrokerSettings(self.address.endpoint, "broker.key", "access.json"),
        )
        for name, role in roles.items():
            self.allow(name, role)
        keystore.save_access(folder / "access.json", self._entries)

    def allow(self, name: str, role: str) -> KeyPair:
        """Put a key into the access list; a running broker has to `reload`."""
        pair = self.keys.get(name) or keystore.create(self.folder / f"{name}.key")
        self.keys[name] = pair
        self._save(self._entries.with_entry(AccessEntry(pair.public, name, [role])))
        return pair

    def forbid(self, name: str) -> None:
        self._save(self._entries.without(self.keys[name].public))

    def _save(self, entries: AccessList) -> None:
        self._entries = entries
        keystore.save_access(self.folder / "access.json", entries)

    def start(self, *arguments: str) -> None:
        """Start it and wait until it listens."""
        before = self.log.count("listening")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bus.cli", "run", str(self.folder), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        process = self.process
        until(
            lambda: self.log.count("listening") > before or process.poll() is not None, "listening"
        )
        if process.poll() is not None:
            raise AssertionError(self.log)

    def reload(self) -> None:
        before = self.log.count("reloaded")
        self.signal(signal.SIGHUP)
        until(lambda: self.log.count("reloaded") > before, "access list reloaded")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop; give its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    @property
    def events(self) -> list[dict[str, object]]:
        """Give the lines of a log in JSON."""
        return [json.loads(line) for line in self.log.splitlines()]

    @property
    def rss(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def peak_rss(self) -> int:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) << 10

    def environment(self, name: str) -> dict[str, str]:
        """Give the environment of a program that is launched with this participant's key."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith("VISCRIPT_")}
        return {
            **kept,
            "VISCRIPT_BROKER": self.address.endpoint,
            "VISCRIPT_BROKER_KEY": self.address.key,
            "VISCRIPT_KEY_FILE": str(self.folder / f"{name}.key"),
            "VISCRIPT_APP": name,
            "VISCRIPT_ID": "7",
            "VISCRIPT_HOME": str(self.folder),
            "VISCRIPT_RUN": str(self.folder),
            "VISCRIPT_STATE": str(self.folder),
        }


@contextmanager
def running_broker(*arguments: str, **roles: str) -> Iterator[Broker]:
    """Run a broker that admits these names with these roles."""
    with tempfile.TemporaryDirectory(prefix="bus-") as folder:
        broker = Broker(Path(folder), **roles)
        try:
            broker.start(*arguments)
            yield broker
        finally:
            if broker.process is not None:
                broker.stop()
