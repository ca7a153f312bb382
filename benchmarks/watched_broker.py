"""A broker with its pages, and what it is like at one moment: memory, descriptors, sessions, queues."""

from __future__ import annotations

import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from benchmarks import brokers
from bus import KeyPair, keystore, signals
from bus.settings import load, save
from bus.signals import AccessEntry
from tests.support.stack import free_port


def read_page(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as page:
        body: bytes = page.read()
        return body


@dataclass(frozen=True)
class Sample:
    """The broker at one moment; the field names are those of `--json`."""

    seconds: float  # since the load began
    rss: int
    fds: int
    threads: int
    sessions: int
    queued_bytes: int
    messages_in: int
    messages_out: int
    lost: int
    cpu: float  # of one core, since the last sample


class Watched:
    """It runs in a folder of its own; its log goes to a file."""

    def __init__(self, folder: Path) -> None:
        home = folder / "broker"
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        subprocess.run(
            [*brokers.BROKER, "init", str(home), "--endpoint", endpoint],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._allow(home, "app", ["app"])
        keystore.create(home / "stranger.key")
        address = f"127.0.0.1:{free_port()}"
        config = home / "broker.json"
        save(config, msgspec.structs.replace(load(config), monitor=address))
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([*brokers.BROKER, "run", str(home)], stderr=log)
        self.pages = f"http://{address}"
        self.job = {
            "endpoint": endpoint, "key": keystore.load(home / "broker.key").public,
            "folder": str(home), "pages": self.pages,
        }  # fmt: skip
        self._process = psutil.Process(self.process.pid)
        self._cpu, self._at = 0.0, time.monotonic()
        self._wait()

    def _allow(self, home: Path, name: str, roles: list[str]) -> None:
        pair: KeyPair = keystore.create(home / f"{name}.key")
        access = keystore.load_access(home / "access.json")
        entry = AccessEntry(pair.public, name, roles)
        keystore.save_access(home / "access.json", access.with_entry(entry))

    def _wait(self) -> None:
        deadline = time.monotonic() + 15
        while True:
            try:
                read_page(f"{self.pages}/healthz")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def sample(self, start: float) -> Sample:
        now = time.monotonic()
        varz = msgspec.json.decode(read_page(f"{self.pages}/varz"), type=signals.Varz)
        with self._process.oneshot():
            rss, threads = self._process.memory_info().rss, self._process.num_threads()
            cpu = sum(self._process.cpu_times()[:2])
        share = (cpu - self._cpu) / max(now - self._at, 0.001)
        self._cpu, self._at = cpu, now
        return Sample(
            now - start, rss, self._process.num_fds(), threads, varz.sessions, varz.queued_bytes,
            varz.messages_in, varz.messages_out, varz.lost, share,
        )  # fmt: skip


@contextmanager
def watched() -> Iterator[Watched]:
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        broker = Watched(Path(folder))
        try:
            yield broker
        finally:
            broker.process.terminate()
            broker.process.wait(15)
