"""docs/hosts.md: every command in it, in its order, on the hosts that it names."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import QUIET
from tests.support.instance import Instance, until
from tests.support.stack import free_port

PAGE = Path(__file__).parents[2] / "docs" / "hosts.md"
LINE = re.compile(r"(\w+)\$ viscript (.*)")


def documented() -> list[tuple[str, str]]:
    blocks = re.findall(r"```hosts\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found = [LINE.fullmatch(line) for block in blocks for line in block.splitlines()]
    assert all(found)
    return [(line[1], line[2]) for line in found if line]


class Hosts:
    """Types what the page has."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.homes = {name: Instance(folder / name) for name in ("first", "attic", "barn")}
        for home in self.homes.values():
            home.configure(QUIET)
        self.homes["first"].configure(QUIET, broker={"endpoint": f"tcp://{self.endpoint}"})
        self.said = ""
        self.waits: subprocess.Popen[str] | None = None

    def type(self, host: str, line: str) -> None:
        home = self.homes[host]
        line = line.replace("bus.example:7600", self.endpoint)
        if "BROKER_KEY" in line:
            key = self.homes["first"].ask("status")["broker"]["key"]
            self.wait(home, [key if word == "BROKER_KEY" else word for word in line.split()])
            return
        if "FINGERPRINT" in line:
            line = line.replace("FINGERPRINT", self.pending()["fingerprint"])
        self.said = home.run(*line.split(), input=self.said).stdout
        if "host accept" in line and self.waits is not None:
            told, _ = self.waits.communicate(timeout=60)
            assert self.waits.returncode == 0, told

    def wait(self, home: Instance, words: list[str]) -> None:
        self.waits = subprocess.Popen(
            [sys.executable, "-P", "-m", "viscript.cli", *words],
            env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        until(lambda: self.pending() is not None)

    def pending(self) -> dict:
        rows = json.loads(self.homes["first"].run("host", "ls", "--json").stdout)
        return next((row for row in rows if row["state"] == "pending"), None)


@pytest.mark.timeout(180)
def test_every_command_of_the_page_works_in_its_order(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path)
    try:
        for host, line in documented():
            hosts.type(host, line)
        assert [row["name"] for row in hosts.homes["first"].ask("host", "ls")][1:] == ["barn"]
    finally:
        for home in reversed(hosts.homes.values()):
            home.clean_up()
