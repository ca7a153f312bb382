"""The whole product in a home of its own: broker, launcher, two nodes and a SOCKS pair."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

_given: set[int] = set()  # by free_port
VISCRIPT = str(Path(sys.executable).with_name("viscript"))


@dataclass(frozen=True)
class Stack:
    """A running home."""

    home: Path
    socks_port: int

    def run(self, *arguments: str, timeout: float = 60) -> str:
        """Run a viscript command; raise CalledProcessError with its output."""
        result = subprocess.run(
            [VISCRIPT, *arguments],
            env=_environment(self.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise AssertionError(
                f"viscript {' '.join(arguments)}: {result.returncode}\n{result.stdout}"
            )
        return result.stdout

    def ask(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def app(self, name: str) -> dict[str, Any]:
        """Give the newest entry of an app in `la`."""
        found = [entry for entry in self.ask("la") if entry["app"] == name]
        return dict(max(found, key=lambda entry: entry["id"]))


def free_port() -> int:
    """A port that nobody has, nor gets by chance: connections and brokers get others."""
    while True:
        port = 10_000 + secrets.randbelow(10_000)
        if port in _given:
            continue
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("", port))
                udp.bind(("", port))
            except OSError:
                continue
        _given.add(port)
        return port


def shipped_config() -> dict[str, Any]:
    packaged = files("viscript") / "_config"
    folder = packaged if packaged.is_dir() else Path(str(files("viscript"))).parent / "config"
    return dict(yaml.safe_load((folder / "config.yaml").read_text()))


@contextlib.contextmanager
def socks_stack(
    home: Path, *, near: Sequence[str] = (), far: Sequence[str] = ()
) -> Iterator[Stack]:
    """Run the shipped config with more arguments for the SOCKS client and the SOCKS server."""
    home.mkdir(mode=0o700, exist_ok=True)
    stack = Stack(home, free_port())
    config = shipped_config()
    listen = ("--listen", f"127.0.0.1:{stack.socks_port}")
    config["apps"]["socks-client"]["args"] = [*listen, *near]
    config["apps"]["socks-server"]["args"] = [*far]
    (home / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    try:
        stack.run("up", "--detach")
        yield stack
    finally:
        stack.run("down")


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "VISCRIPT" not in name}
    return {**kept, "VISCRIPT_HOME": str(home)}
