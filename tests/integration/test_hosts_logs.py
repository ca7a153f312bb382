"""Logs of other hosts: read over the bus, followed over cuts, only by who may see the launch."""

import subprocess
import sys
import threading

import pytest

from tests.support.cluster import cluster
from tests.support.instance import until


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("c")) as made:
        made.beta = made.join("beta")
        yield made


class Following:
    """`viscript logs -f` as it runs; `lines` so far."""

    def __init__(self, home, *words: str) -> None:
        command = [sys.executable, "-P", "-m", "viscript.cli", "logs", "-f", *words]
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            command, env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def end(self) -> str:
        self._process.terminate()
        self._reader.join()
        return self._process.communicate()[1]


def test_the_last_lines_of_an_app_of_another_host(pair):
    number = pair.beta.start("sh", "seq 1 5; sleep 1000")["id"]
    until(lambda: pair.beta.run("logs", str(number)).stdout.endswith("5\n"))
    assert pair.first.run("logs", "beta:sh", "-n", "2").stdout == "4\n5\n"
    assert pair.first.run("logs", "--host", "beta", str(number), "-n", "1").stdout == "5\n"
    assert pair.first.run("logs", "beta:sh", "--grep", "[24]").stdout == "2\n4\n"
    said = pair.first.ask("logs", "beta:sh", "-n", "1")
    assert (said["host"], said["id"], said["lines"]) == ("beta", number, ["5"])


def test_a_log_larger_than_a_message_comes_whole_and_in_order(pair):
    number = pair.beta.start("sh", "seq 1 200000; sleep 1000")["id"]
    until(lambda: pair.beta.run("logs", str(number), "-n", "1").stdout == "200000\n")
    shown = pair.first.run("logs", f"beta:{number}", "-n", "200000").stdout
    assert shown == "".join(f"{n}\n" for n in range(1, 200001))


def test_lines_of_several_hosts_have_their_hosts_name(pair):
    pair.first.start("sh", "echo here; sleep 1000")
    there = pair.beta.start("sh", "echo there; sleep 1000")["id"]
    until(lambda: "there" in pair.beta.run("logs", str(there)).stdout)
    shown = pair.first.run("logs", "sh", f"beta:{there}").stdout.splitlines()
    assert any(line.startswith(f"beta:sh.{there}") and line.endswith("| there") for line in shown)
    assert any(line.startswith("sh.") and line.endswith("| here") for line in shown)


def test_what_is_followed_goes_on_when_its_host_was_away_without_a_lost_or_doubled_line(pair):
    number = pair.beta.start("chatty")["id"]
    following = Following(pair.first, f"beta:{number}", "-n", "1")
    until(lambda: len(following.lines) > 20)
    pair.beta.kill_daemon()
    pair.beta.run("up", "--detach")
    seen = len(following.lines)
    until(lambda: len(following.lines) > seen + 100, 30)
    following.end()
    numbers = [int(line.split()[1]) for line in following.lines]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_host_that_is_away_is_said_to_be(pair):
    refused = pair.first.run("logs", "--host", "nowhere", "sh", code=5)
    assert "viscript host ls" in refused.stderr
    assert pair.first.run("logs", "beta:nothing", code=5).stderr


def test_who_has_no_role_there_sees_no_log_and_view_is_enough(pair):
    pair.first.start("sh", "echo mine; sleep 1000")
    name = pair.first.ask("host", "ls")[0]["name"]
    assert "mine" in pair.beta.run("logs", f"{name}:sh").stdout
    gamma = pair.join("gamma", "--role", "none")
    assert "viscript role set" in gamma.run("logs", f"{name}:sh", code=4).stderr
    assert "viscript role set" in gamma.run("logs", f"{name}:daemon", code=4).stderr
    assert "viscript.logs" in pair.first.run("audit", "--denied", "--json").stdout
