"""Two hosts in two network namespaces: the link is cut and healed, half of it dies, a key is revoked.

`first` has the broker; `away` joins it over a virtual wire. What is dropped is dropped by the kernel, so both
ends see silence, not a closed connection.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import QUIET
from tests.support.instance import Instance, alive, until

FIRST, AWAY, PORT = "10.203.7.1", "10.203.7.2", 7600
NOTICED = 60.0  # seconds: the broker gives a silent connection up after 25, then clients try again


class Namespaced(Instance):
    """An instance whose commands run in a network namespace, and so does all that they start."""

    def __init__(self, root: Path, namespace: str) -> None:
        self.namespace = namespace
        super().__init__(root)

    def run(self, *arguments: str, code: int | None = 0, **more) -> subprocess.CompletedProcess:
        command = ["ip", "netns", "exec", self.namespace, *VISCRIPT, *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
            **more,
        )  # fmt: skip
        assert code is None or done.returncode == code, (arguments, done, self.daemon_log())
        return done


VISCRIPT = [sys.executable, "-P", "-m", "viscript.cli"]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Wire:
    """A veth pair between two namespaces; named after this process, so that two runs do not meet."""

    def __init__(self) -> None:
        tag = f"vs{os.getpid() % 100_000}"
        self.first, self.away = f"{tag}a", f"{tag}b"
        for namespace in (self.first, self.away):
            ip("netns", "add", namespace)
        ip("link", "add", self.first, "type", "veth", "peer", "name", self.away)
        for namespace, address in ((self.first, FIRST), (self.away, AWAY)):
            ip("link", "set", namespace, "netns", namespace)
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", namespace)
            for device in (namespace, "lo"):
                ip("-n", namespace, "link", "set", device, "up")

    def drop(self, namespace: str) -> None:
        """What `namespace` sends to the other vanishes: it goes to a machine that is not there."""
        other = AWAY if namespace == self.first else FIRST
        ip("-n", namespace, "neigh", "replace", other, "lladdr", "02:00:00:00:00:01",
           "dev", namespace, "nud", "permanent")  # fmt: skip

    def mend(self, namespace: str) -> None:
        other = AWAY if namespace == self.first else FIRST
        ip("-n", namespace, "neigh", "del", other, "dev", namespace)

    def close(self) -> None:
        for namespace in (self.first, self.away):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


class Two:
    def __init__(self, wire: Wire, folder: Path) -> None:
        self.wire = wire
        self.first = Namespaced(folder / "first", wire.first)
        self.first.configure(QUIET, broker={"endpoint": f"tcp://0.0.0.0:{PORT}"})
        self.away = Namespaced(folder / "away", wire.away)
        self.away.configure(QUIET)

    def state(self) -> str:
        rows = json.loads(self.first.run("host", "ls", "--json", code=None).stdout)
        return next(row["state"] for row in rows if row["name"] == "away")

    def listed(self, number: int) -> dict:
        found = json.loads(self.first.run("la", "--json", code=None).stdout)
        return next(x for x in found if x["id"] == number)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    wire = Wire()
    made = Two(wire, tmp_path)
    try:
        made.first.run("up", "--detach")
        text = made.first.ask("host", "invite", "--endpoint", FIRST, "--name", "away")["join"]
        made.away.run("join", input=text + "\n")
        yield made
    finally:
        made.away.clean_up()
        made.first.clean_up()
        wire.close()


def test_what_is_started_there_from_here_is_seen_and_ended_from_here(two: Two) -> None:
    started = json.loads(two.first.run("start", "--json", "away:citizen").stdout)
    number = str(started["id"])
    assert two.listed(started["id"])["host"] == "away"
    assert two.first.ask("ping", number)["bus"]["ok"] is True
    assert two.first.ask("sd", number)[0]["exit"]["how"] == "shut down over the bus"


def test_a_link_that_is_cut_and_healed(two: Two) -> None:
    started = json.loads(two.first.run("start", "--json", "away:sleeper").stdout)
    number, pid = started["id"], started["pid"]
    until(lambda: two.first.ask("host", "ls")[1]["launches"] == {"running": 1})
    two.wire.drop(two.wire.first)
    two.wire.drop(two.wire.away)
    until(lambda: two.state() == "unreachable", NOTICED)
    shown = two.listed(number)
    assert (shown["state"], shown["seen"] is not None) == ("running", True)
    assert "away" in two.first.run("sd", str(number), code=6).stderr
    assert two.away.run("la", code=6).stderr
    assert alive(pid)
    two.wire.mend(two.wire.first)
    two.wire.mend(two.wire.away)
    until(lambda: two.state() == "connected", NOTICED)
    shown = two.listed(number)
    assert (shown["pid"], shown["seen"]) == (pid, None)
    assert two.first.ask("sd", str(number))[0]["state"] in {"exited", "failed"}
    assert not alive(pid)


def test_a_connection_that_is_half_open(two: Two) -> None:
    """What the other host sends still arrives, what is sent to it does not."""
    started = json.loads(two.first.run("start", "--json", "away:sleeper").stdout)
    number, pid = started["id"], started["pid"]
    until(lambda: two.first.ask("host", "ls")[1]["launches"] == {"running": 1})
    two.wire.drop(two.wire.first)
    failed = two.first.run("sd", str(number), code=None)
    assert failed.returncode in {6, 7}  # 7 while nobody knows yet: it may have happened
    until(lambda: two.state() == "unreachable", NOTICED)
    assert two.first.run("sd", str(number), code=6).stderr
    assert alive(pid)
    two.wire.mend(two.wire.first)
    until(lambda: two.state() == "connected", NOTICED)
    assert two.listed(number)["pid"] == pid


def test_a_key_that_is_revoked_while_connected_and_while_cut(two: Two) -> None:
    started = json.loads(two.first.run("start", "--json", "away:sleeper").stdout)
    two.first.run("host", "revoke", "away")
    assert two.state() == "revoked"
    assert two.away.run("la", code=4).stderr
    assert started["id"] not in {x["id"] for x in two.first.ask("la")}
    assert alive(started["pid"])
    text = two.first.ask("host", "invite", "--endpoint", FIRST)["join"]
    two.away.run("down")
    two.away.run("join", input=text + "\n")
    assert two.state() == "connected"
    two.wire.drop(two.wire.away)
    two.first.run("host", "revoke", "away")
    two.wire.mend(two.wire.away)
    until(lambda: two.away.run("la", code=None).returncode == 4, NOTICED)
    assert two.state() == "revoked"


def test_down_on_a_host_that_is_cut_off_ends_what_runs_there(two: Two) -> None:
    pid = two.away.start("sleeper")["pid"]
    two.wire.drop(two.wire.first)
    two.wire.drop(two.wire.away)
    assert "sleeper" in two.away.run("down").stdout
    assert not alive(pid)
