"""Several exits, each on a node of its own: which one new connections take, and what happens when it dies."""

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from bus import NotPresent
from tests.support.pair import Pair
from tests.support.socks import ask, connect, receive_all
from tests.support.web import PAGE, Web, web_server

GET = b"GET / HTTP/1.0\r\n\r\n"
EXITS = {"beta": "far", "gamma": "far2"}


class TwoExits(Pair):
    """socks-servers `far` at beta and `far2` at gamma, and a tracker."""

    def start_broker(self, names) -> None:
        self._key("far2", "app")
        self._key("tracker", "tracker")
        super().start_broker(names)

    def start_exit(self, node: str) -> None:
        command = ["-m", "apps.socks.server", "--node", node, "--allow", "127.0.0.1/32"]
        self._spawn(EXITS[node], command, self._environment(EXITS[node]))

    def start_tracker(self) -> None:
        self._spawn("tracker", ["-m", "apps.tracker.server"], self._environment("tracker"))


@pytest.fixture
def exits() -> Iterator[TwoExits]:
    with tempfile.TemporaryDirectory(prefix="pair-") as folder:
        pair = TwoExits(Path(folder))
        try:
            pair.start_broker(["alpha", "beta", "gamma"])
            pair.start_manager()
            pair.start_tracker()
            pair.start_node("alpha")
            for name in EXITS:
                pair.start_node(name, "alpha")
            asyncio.run(pair.linked(("alpha", "beta"), ("alpha", "gamma")))
            for name in EXITS:
                pair.start_exit(name)
            deadline = time.monotonic() + 30
            while not all("connected to node" in pair.log(app) for app in EXITS.values()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield pair
        finally:
            for process in pair.processes.values():
                process.send_signal(signal.SIGCONT)
            pair.stop()


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


def fetch(port: int, web: Web) -> None:
    with connect(port, timeout=30) as sock:
        assert ask(sock, "127.0.0.1", web.port) == 0
        sock.sendall(GET)
        assert receive_all(sock).endswith(PAGE)


def eventually(port: int, web: Web) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return fetch(port, web)
        except (AssertionError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def eventually_by(exits: "TwoExits", node: str, port: int, web: Web) -> None:
    """Until connections go that way; who begins before an exit is there takes the other."""
    deadline = time.monotonic() + 40
    while not opened(exits, node):
        assert time.monotonic() < deadline
        eventually(port, web)
        time.sleep(0.1)


def opened(exits: TwoExits, node: str) -> int:
    """How many connections that exit carried; none while it is not there."""
    with contextlib.suppress(NotPresent):
        return asyncio.run(_opened(exits, node))
    return 0


async def _opened(exits: TwoExits, node: str) -> int:
    async with exits.bus() as bus:
        body = await bus.request("socks.stats", to=exits.key(EXITS[node]), timeout=10)
    return msgpack.unpackb(body)["opened"]


def test_the_first_that_is_named_is_taken_and_the_next_when_its_app_is_gone(
    exits: TwoExits, web: Web
):
    port = exits.start_near("--exit", "beta,gamma")
    eventually_by(exits, "beta", port, web)
    before = opened(exits, "gamma")
    exits.kill("far")
    fetch(port, web)  # at once, without an error
    assert opened(exits, "gamma") == before + 1


def test_the_next_is_taken_when_the_node_is_killed_or_frozen(exits: TwoExits, web: Web):
    port = exits.start_near("--exit", "beta,gamma")
    eventually_by(exits, "beta", port, web)
    before = opened(exits, "gamma")
    exits.processes["beta"].send_signal(signal.SIGSTOP)  # gone without a word
    began = time.monotonic()
    fetch(port, web)
    assert time.monotonic() - began < 20  # it does not wait for the exit's 25 s
    assert opened(exits, "gamma") == before + 1


def test_one_that_is_back_is_taken_again(exits: TwoExits, web: Web):
    port = exits.start_near("--exit", "beta,gamma")
    eventually_by(exits, "beta", port, web)
    exits.kill("far")
    fetch(port, web)
    exits.start_exit("beta")
    eventually_by(exits, "beta", port, web)  # the new one counts from none


def test_the_fastest_of_those_on_offer_is_found_and_another_when_it_dies(exits: TwoExits, web: Web):
    port = exits.start_near("--exit", "fastest")
    eventually(port, web)
    used = "beta" if opened(exits, "beta") else "gamma"
    other = "gamma" if used == "beta" else "beta"
    exits.kill(EXITS[used])
    eventually_by(exits, other, port, web)
