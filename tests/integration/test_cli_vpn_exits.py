"""`viscript vpn exits`, with an exit that only tells of itself."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from apps.vpn.stats import SERVED, STATS, Client, Stats
from tests.support.stack import VISCRIPT, Stack, _environment

KEY = "k" * 40
CLIENT = Client(
    "c" * 40, "10.70.0.9", "fd00::9", 1.0, 2_000, 3_000, 10.0, 20.0, 5_000, {"mail": 4}, {}, 0.01
)
TOLD = Stats(
    "beta", KEY, 1.0, [CLIENT], 128, {"up": 1_000_000, "connections": 7}, 12, 3,
    {"questions": 5}, ["tcp"], ["a firewall drops"],
)  # fmt: skip
PROGRAM = f"""
from bus import process

async def main(participant):
    told = bytes.fromhex("{msgspec.msgpack.encode(TOLD).hex()}")
    participant.bus.answer("{STATS}", lambda _request: told)
    await participant.bus.serve("{SERVED}", lambda _request: told, name="vpn-exit")
    await participant.stopping.wait()

process.run(main)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("vpn") / "home"
    home.mkdir(mode=0o700)
    (home / "exit.py").write_text(PROGRAM)
    app = {
        "path": sys.executable,
        "default_args": ["-P", str(home / "exit.py")],
        "ready": {"bus": True},
    }
    (home / "config.yaml").write_text(yaml.safe_dump({"apps": {"exit": app}}))
    running = Stack(home, 0)
    try:
        running.run("up", "--detach")
        yield running
    finally:
        running.run("down")


def exits(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VISCRIPT, "vpn", "exits", *words], env=_environment(Path(stack.home)),
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_without_an_exit_the_way_to_one_is_told_and_one_is_shown_with_its_clients(
    stack: Stack,
) -> None:
    none = exits(stack)
    assert none.returncode == 5
    assert "viscript start vpn-server" in none.stderr
    stack.run("start", "exit")
    deadline = time.monotonic() + 30
    while (found := exits(stack)).returncode:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    for said in ("exit at node beta", "1 of 128", "10.70.0.9", "4 mail", "a firewall drops"):
        assert said in found.stdout
    [told] = json.loads(exits(stack, "beta", "--json").stdout)
    assert told == msgspec.to_builtins(TOLD)
    assert exits(stack, "nowhere").returncode == 5
