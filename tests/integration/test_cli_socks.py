"""`viscript socks status` in a home with the shipped configuration."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.socks import ask, connect, receive_all
from tests.support.stack import VISCRIPT, Stack, _environment, socks_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with socks_stack(tmp_path_factory.mktemp("socks") / "home") as running:
        yield running


def status(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VISCRIPT, "socks", "status", *words], env=_environment(stack.home), capture_output=True,
        text=True, timeout=30, check=False,
    )  # fmt: skip


def test_exits_are_listed_and_shown_and_told_to_programs(stack: Stack) -> None:
    with connect(stack.socks_port) as sock:
        assert ask(sock, "169.254.169.254", 80) == 2
        assert receive_all(sock) == b""
    listed = status(stack)
    assert listed.returncode == 0
    assert "beta" in listed.stdout
    shown = status(stack, "beta").stdout
    assert "exit at node beta, mesh port 3, for all nodes" in shown
    assert "1 not_allowed" in shown
    found = status(stack, "--json")
    assert found.returncode == 0, found
    (told,) = json.loads(found.stdout)
    assert (told["node"], told["port"], told["refused"]) == ("beta", 3, {"not_allowed": 1})
    (key,) = told["keys"]
    assert key["refused"] == {"not_allowed": 1}
    found = status(stack, "--json", "--", told["key"])  # it may begin with a hyphen
    assert found.returncode == 0, (told, found)
    assert json.loads(found.stdout)[0]["node"] == "beta"


def test_without_an_exit_the_way_to_one_is_told(stack: Stack) -> None:
    assert status(stack, "nowhere").returncode == 5
    stack.run("sd", "socks-server")
    deadline = time.monotonic() + 20
    while (found := status(stack)).returncode != 5:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert "viscript start socks-server" in found.stderr
    assert json.loads(status(stack, "--json").stdout) == []


def test_what_is_wrong_with_an_order_to_start_an_exit_is_told() -> None:
    for words, way_out in (
        (["--allow", "a b"], "*.example.com:443"),
        (["--allow", "*.example.com"], "--only"),
        (["--limit", "rate=fast"], "10M"),
        (["--allow-key", "alpha"], "viscript node ls"),
        (["--resolver", "dns.test"], "192.0.2.53"),
    ):
        command = [sys.executable, "-P", "-m", "apps.socks.server", "--node", "beta", *words]
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert found.returncode == 2
        assert way_out in found.stderr
