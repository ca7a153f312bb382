"""The tracker with real apps on real nodes, over the bus and over its TCP address."""

import asyncio
import base64
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from bus import Refused
from bus.client import Bus
from nodes import api, offers
from nodes.client import StreamReset, connect_node
from nodes.wire import Code
from tests.support.forwarding import AppMesh, app_mesh
from tests.support.mesh import PATIENCE
from tests.support.stack import free_port

TRACKER = "apps.tracker.server"


class Tracked:
    """A mesh with a tracker at a TCP address."""

    def __init__(self, mesh: AppMesh, port: int) -> None:
        self.mesh = mesh
        self.port = port

    def start_tracker(self) -> None:
        address = f"127.0.0.1:{self.port}"
        self.mesh.start_app("tracker", TRACKER, address, until="answers tracker.find")

    def start_offering(self, name: str, kind: str, port: int) -> None:
        self.mesh.start_app(
            name, "apps.forward.server", "--node", "beta", "--allow", "everybody", "--offer", kind,
            str(port), "127.0.0.1:1", until="connected to node",
        )  # fmt: skip

    def tell(self, line: bytes) -> Any:
        """Say a line at the address; give what is answered."""
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as sock,
            sock.makefile("rwb") as f,
        ):
            f.write(line)
            f.flush()
            return json.loads(f.readline())


@pytest.fixture(scope="module")
def tracked() -> Iterator[Tracked]:
    with app_mesh(tracker="tracker", one="app", two="app", mine="app") as mesh:
        asyncio.run(mesh.linked(("alpha", "beta")))
        running = Tracked(mesh, free_port())
        running.start_tracker()
        yield running


async def find(bus: Bus, kind: str | None = None) -> list[tuple[str, int]]:
    body = await bus.request(offers.FIND, api.pack(offers.Search(kind)), timeout=5)
    found = api.unpack(body, offers.Found).offers
    for each in found:
        offers.verified(each, time.time())
    return [(each.key, each.port) for each in found]


async def until(wanted: object, look: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while (found := await look()) != wanted:
            await asyncio.sleep(0.05)
    assert found == wanted


async def test_what_runs_is_found_and_what_was_stopped_is_not(tracked: Tracked) -> None:
    beta = tracked.mesh.key("beta")
    async with tracked.mesh.bus() as bus:
        tracked.start_offering("one", "ssh", 22)
        await until([(beta, 22)], lambda: find(bus, "ssh"))
        assert await find(bus, "web") == []
        tracked.mesh.end_app("one")
        await until([], lambda: find(bus))


async def test_what_was_killed_is_not_found(tracked: Tracked) -> None:
    async with tracked.mesh.bus() as bus:
        tracked.start_offering("two", "ssh", 23)
        await until([(tracked.mesh.key("beta"), 23)], lambda: find(bus, "ssh"))
        tracked.mesh.kill_app("two")
        await until([], lambda: find(bus))


async def test_a_tracker_that_was_restarted_hears_of_what_is_there(tracked: Tracked) -> None:
    async with tracked.mesh.bus() as bus:
        tracked.start_offering("one", "ssh", 22)
        tracked.mesh.kill_app("tracker")
        tracked.start_tracker()
        await until([(tracked.mesh.key("beta"), 22)], lambda: find(bus, "ssh"))
        tracked.mesh.end_app("one")


async def test_what_was_at_a_node_that_died_is_not_found_until_it_is_back(tracked: Tracked) -> None:
    mesh = tracked.mesh
    async with mesh.bus() as bus:
        tracked.start_offering("one", "ssh", 22)
        await until([(mesh.key("beta"), 22)], lambda: find(bus, "ssh"))
        mesh.kill("beta")
        await until([], lambda: find(bus, "ssh"))
        mesh.start_node("beta", "alpha")
        await until([(mesh.key("beta"), 22)], lambda: find(bus, "ssh"))
        mesh.end_app("one")


async def test_a_node_vouches_only_for_who_listens_there(tracked: Tracked) -> None:
    statement = offers.state("ssh", {}, time.time(), 30)
    socket_path = tracked.mesh.socket("beta")
    async with connect_node(socket_path, "one") as one, connect_node(socket_path, "two") as two:
        await one.listen(30)
        await one.vouch(30, statement)
        for node, port in ((two, 30), (one, 31)):
            with pytest.raises(StreamReset) as problem:
                await node.vouch(port, statement)
            assert problem.value.code is Code.NO_LISTENER


async def test_forged_expired_and_replayed_announcements_are_refused(tracked: Tracked) -> None:
    now = time.time()
    async with tracked.mesh.bus() as bus, connect_node(tracked.mesh.socket("beta"), "me") as node:
        await node.listen(40)

        async def refusal(told: offers.Announcement) -> str:
            with pytest.raises(Refused) as problem:
                await bus.request(offers.ANNOUNCE, api.pack(told), timeout=5)
            return problem.value.err

        async def made(port: int, issued: float, *, key: str = node.key) -> offers.Announcement:
            statement = offers.state("ssh", {}, issued, 30)
            return offers.Announcement(key, port, statement, await node.vouch(40, statement))

        assert await refusal(await made(40, now, key=tracked.mesh.key("alpha"))) == "bad_offer"
        assert await refusal(await made(41, now)) == "bad_offer"
        assert await refusal(await made(40, now - 31)) == "bad_offer"
        good = await made(40, now)
        await bus.request(offers.ANNOUNCE, api.pack(good), timeout=5)
        assert await find(bus) == [(node.key, 40)]
        assert await refusal(good) == "stale"
        place = api.pack(offers.Place(node.key, 40))
        await bus.request(offers.WITHDRAW, place, timeout=5)
        assert await find(bus) == []
        assert await refusal(good) == "stale"


async def test_programs_that_are_not_on_the_bus_ask_and_announce_by_lines(tracked: Tracked) -> None:
    async with connect_node(tracked.mesh.socket("beta"), "me") as node:
        await node.listen(50)
        statement = offers.state("chess", {"level": "3"}, time.time(), 30)
        signature = await node.vouch(50, statement)
    told = {
        "key": tracked.mesh.key("beta"),
        "port": 50,
        "statement": base64.b64encode(statement).decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    tell = tracked.tell
    assert tell(json.dumps({"announce": told}).encode() + b"\n") == {"done": True}
    answer = tell(b'{"find": "chess"}\n')
    (found,) = answer["offers"]
    assert found["labels"] == {"level": "3"}
    assert {name: found[name] for name in told} == told
    assert tell(json.dumps({"announce": told}).encode() + b"\n")["error"] == "stale"
    assert (
        tell(json.dumps({"announce": {**told, "port": 51}}).encode() + b"\n")["error"]
        == "bad_offer"
    )
    assert tell(b"GET / HTTP/1.0\r\n")["error"] == "bad_request"


async def test_strangers_at_the_address_cannot_hold_it_up(tracked: Tracked) -> None:
    open_ones = [socket.create_connection(("127.0.0.1", tracked.port), 10) for _ in range(80)]
    try:
        for sock in open_ones:
            sock.settimeout(10)
        # Beyond so many, the next are closed; on the bus nobody notices.
        assert open_ones[-1].recv(1) == b""
        async with tracked.mesh.bus() as bus:
            await find(bus)
        open_ones[0].sendall(b"x" * 10_000)
        assert open_ones[0].recv(1) == b""
        open_ones[1].sendall(b"{}\n{}\n")
        with open_ones[1].makefile("rb") as lines:
            assert json.loads(lines.readline())
            assert json.loads(lines.readline())
    finally:
        for sock in open_ones:
            sock.close()


@pytest.mark.parametrize(("argument", "code"), [("somewhere", 2), ("TAKEN", 9)])
def test_an_address_that_cannot_be_had_is_told_with_its_code(
    tracked: Tracked, argument: str, code: int
) -> None:
    address = argument.replace("TAKEN", f"127.0.0.1:{tracked.port}")
    command = [sys.executable, "-P", "-m", TRACKER, address]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert found.returncode == code
    assert address in found.stderr


def test_it_ends_orderly_when_it_is_told_to(tracked: Tracked) -> None:
    with socket.create_connection(("127.0.0.1", tracked.port), 10):
        process = tracked.mesh.processes["tracker"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert "Traceback" not in tracked.mesh.log("tracker")
    del tracked.mesh.processes["tracker"]
