"""`viscript find` in a home with the shipped configuration."""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.stack import VISCRIPT, Stack, _environment, free_port, socks_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with socks_stack(tmp_path_factory.mktemp("find") / "home") as running:
        yield running


def find(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VISCRIPT, "find", *words], env=_environment(stack.home), capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip


def eventually(stack: Stack, code: int, *words: str) -> subprocess.CompletedProcess[str]:
    deadline = time.monotonic() + 20
    while (found := find(stack, *words)).returncode != code:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_without_a_tracker_the_way_to_one_is_told(stack: Stack) -> None:
    found = find(stack)
    assert found.returncode == 5
    assert "viscript start apptracker" in found.stderr


def test_what_is_offered_is_found_while_it_is_there(stack: Stack) -> None:
    stack.run("s", "apptracker", f"127.0.0.1:{free_port()}")
    (shown,) = json.loads(eventually(stack, 0, "socks", "--json").stdout)
    assert (shown["type"], shown["port"]) == ("socks", 3)
    assert shown["labels"] == {"node": "beta", "load": "0", "access": "all", "udp": "yes"}
    assert shown["key"] in find(stack).stdout
    assert find(stack, "--label", "node=beta").returncode == 0
    assert find(stack, "--label", "node=alpha").returncode == 5
    assert find(stack, "vpn").returncode == 5
    assert json.loads(find(stack, "vpn", "--json").stdout) == []
    stack.run("sd", "socks-server")
    assert "nothing of the type" in eventually(stack, 5, "socks").stderr


@pytest.mark.parametrize("words", [("no type",), ("--label", "node")])
def test_what_cannot_be_meant_is_a_wrong_argument(stack: Stack, words: tuple[str, ...]) -> None:
    assert find(stack, *words).returncode == 2
