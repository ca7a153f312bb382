"""The brokers that are compared: ours as shipped, nats-server and mosquitto in clear text."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus import keystore
from bus.signals import AccessEntry
from tests.support.stack import free_port

Job = dict[str, object]
BROKER = [sys.executable, "-P", "-m", "bus.cli"]


class OurBroker:
    """A broker in a folder of its own, with keys enough for a crowd (256 sessions may share one)."""

    def __init__(self, folder: Path, crowd_keys: int = 0) -> None:
        self.folder = folder
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        subprocess.run(
            [*BROKER, "init", str(folder), "--endpoint", endpoint],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        entries = keystore.load_access(folder / "access.json")
        for number in range(crowd_keys):
            pair = keystore.create(folder / f"crowd{number}.key")
            entries = entries.with_entry(AccessEntry(pair.public, f"crowd{number}", ["app"]))
        keystore.save_access(folder / "access.json", entries)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*BROKER, "run", str(self.folder), "--log", "json"], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        listening = json.loads(self.process.stderr.readline())
        self.job: Job = {
            "endpoint": listening["endpoint"], "key": listening["key"],
            "key_file": str(self.folder / "admin.key"),
        }  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextmanager
def ours(folder: Path, crowd_keys: int = 0) -> Iterator[OurBroker]:
    broker = OurBroker(folder, crowd_keys)
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def nats(folder: Path) -> Iterator[Job]:
    """nats-server with JetStream's file store. 2.9 writes without fsync and cannot be told to do more."""
    port = free_port()
    command = [
        _binary("nats-server"),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        "-js",
        "-sd",
        str(folder),
    ]
    with _child(command, port):
        yield {"endpoint": f"nats://127.0.0.1:{port}"}


@contextmanager
def mosquitto(folder: Path) -> Iterator[Job]:
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n"
    )
    with _child([_binary("mosquitto"), "-c", str(config)], port):
        yield {"endpoint": f"127.0.0.1:{port}"}


@contextmanager
def _child(command: list[str], port: int) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(10)


def _binary(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise SystemExit(f"{name} is not installed: run .ci/install_system")
    return found
