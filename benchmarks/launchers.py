"""Three launchers with the same apps: ours, circus and supervisord, each in a folder of its own."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

BIN = Path(sys.executable).parent
# Ready is what the app itself says, the same for all three: it has made its file.
APP = """#!/bin/sh
: >"$1/$2"
exec sleep 100000
"""
PATIENCE = 60.0  # seconds for all apps to come up or to go
GRAIN = 0.002  # seconds between two looks


class Launcher:
    """One of the three. `begin` starts it and its apps; `end` ends everything that it started."""

    name: str
    listing: list[str]  # the command that shows all apps

    def __init__(self, folder: Path, apps: int) -> None:
        self.folder, self.apps = folder, apps
        self.marks = folder / "ready"
        self.marks.mkdir(parents=True)
        self.program = folder / "app"
        self.program.write_text(APP)
        self.program.chmod(0o755)
        self.configure()

    def configure(self) -> None:
        raise NotImplementedError

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def daemon(self) -> int:
        """The pid of the process that supervises."""
        raise NotImplementedError

    def cold(self) -> float:
        """Milliseconds from nothing until every app has said that it is there."""
        for mark in self.marks.iterdir():
            mark.unlink()
        start = time.perf_counter()
        self.begin()
        deadline = start + PATIENCE
        while len(os.listdir(self.marks)) < self.apps:  # noqa: PTH208 - looked at very often
            if time.perf_counter() > deadline:
                raise SystemExit(f"{self.name}: not all apps came up in {PATIENCE:.0f} s")
            time.sleep(GRAIN)
        return (time.perf_counter() - start) * 1000

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        try:
            self.cold()
            yield
        finally:
            self.end()


class Viscript(Launcher):
    name = "viscript"
    _process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        # As if installed: a checkout may have been changed since it was compiled last.
        for package in ("bus", "nodes", "viscript"):
            compileall.compile_dir(Path(__file__).parents[1] / package, quiet=2)
        entry = {
            "path": str(self.program),
            "autostart": True,
            "stop": [{"signal": "TERM", "wait": 5}],
        }
        apps: dict[str, Any] = {
            f"app-{n}": {**entry, "args": [str(self.marks), str(n)]} for n in range(self.apps)
        }
        apps["cycle"] = {"path": "sleep", "args": ["100000"]}
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump({"apps": apps}))
        self.home = self.folder / "home"
        self.command = [str(BIN / "viscript"), "--home", str(self.home)]
        self.up = [*self.command, "up", "--config", str(config)]
        self.listing = [*self.command, "la"]

    def begin(self) -> None:
        """In the foreground, as the others."""
        with (self.folder / "out.log").open("ab") as log:
            self._process = subprocess.Popen(self.up, stdout=log, stderr=log, cwd=self.folder)

    def end(self) -> None:
        quietly([*self.command, "down"])
        if self._process is not None:
            self._process.wait(PATIENCE)
            self._process = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Until it can be asked: its apps are there before."""
        try:
            self.detached()
            yield
        finally:
            self.end()

    def detached(self) -> float:
        """Milliseconds from nothing until `up --detach` has said that all runs and is in order."""
        start = time.perf_counter()
        quietly([*self.up, "--detach"])
        return (time.perf_counter() - start) * 1000

    def daemon(self) -> int:
        return int(self.ask("status")["daemon"]["pid"])

    def ask(self, *words: str) -> Any:
        done = subprocess.run([*self.command, *words, "--json"], check=True, capture_output=True)
        return json.loads(done.stdout)

    def keepers(self) -> list[int]:
        states = self.home.glob("launches/*/state.json")
        reports = [json.loads(state.read_text()) for state in states]
        return [r["keeper_pid"] for r in reports if r["state"] == "running"]


class Peer(Launcher):
    """A launcher that is one process in the foreground."""

    command: list[str]
    control: tuple[
        str, ...
    ] = ()  # to end it, where it does not hear signals while it starts its apps
    _process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        with (self.folder / "out.log").open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)

    def end(self) -> None:
        if self._process is None:
            return
        if self.control:
            quietly([*self.control, "quit"])
        else:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)

    def daemon(self) -> int:
        assert self._process is not None
        return self._process.pid


class Supervisord(Peer):
    name = "supervisord"

    def configure(self) -> None:
        socket, config = self.folder / "s.sock", self.folder / "supervisord.conf"
        text = f"""[supervisord]
nodaemon=true
logfile={self.folder}/supervisord.log
pidfile={self.folder}/supervisord.pid
childlogdir={self.folder}
[unix_http_server]
file={socket}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{socket}
"""
        for n in range(self.apps):
            text += f"[program:app-{n}]\ncommand={self.program} {self.marks} {n}\nstartsecs=0\n"
        config.write_text(text)
        self.command = ["supervisord", "-c", str(config)]
        self.listing = ["supervisorctl", "-c", str(config), "status"]


class Circus(Peer):
    name = "circus"

    def configure(self) -> None:
        endpoint = f"ipc://{self.folder}/c"
        config = self.folder / "circus.ini"
        text = f"[circus]\nendpoint={endpoint}\npubsub_endpoint={endpoint}p\n"
        for n in range(self.apps):
            text += (
                f"[watcher:app-{n}]\ncmd={self.program} {self.marks} {n}\n"
                f"stdout_stream.class=FileStream\nstdout_stream.filename={self.folder}/{n}.log\n"
                f"stderr_stream.class=FileStream\nstderr_stream.filename={self.folder}/{n}.err\n"
            )
        config.write_text(text)
        self.command = [str(BIN / "circusd"), str(config)]
        self.control = (str(BIN / "circusctl"), "--endpoint", endpoint)
        self.listing = [*self.control, "status"]


def quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
