"""Port forwarding over two real nodes, spoken to with plain sockets."""

import asyncio
import hashlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.forwarding import AppMesh, app_mesh
from tests.support.stack import free_port
from tests.support.web import counting_server

CLIENT, SERVER = "apps.forward.client", "apps.forward.server"
MESH_PORT = 22


@pytest.fixture(scope="module")
def mesh() -> Iterator[AppMesh]:
    with app_mesh(near="app", far="app", other="app") as running:
        asyncio.run(running.linked(("alpha", "beta")))
        yield running


class Forward:
    """`port` of this machine leads to a server that answers with the number of bytes it was sent."""

    def __init__(self, mesh: AppMesh, target: int) -> None:
        self.mesh = mesh
        self.target = target
        self.port = free_port()

    def start_far(self, *arguments: str, allow: str = "") -> None:
        allowed = ("--allow", allow or self.mesh.key("alpha"))
        place = (str(MESH_PORT), f"127.0.0.1:{self.target}")
        self.mesh.start_app(
            "far", SERVER, "--node", "beta", *allowed, *arguments, *place, until="connected to node"
        )

    def start_near(self, to: str = "beta", *arguments: str) -> None:
        places = (f"127.0.0.1:{self.port}", f"{to}:{MESH_PORT}")
        self.mesh.start_app(
            "near", CLIENT, "--node", "alpha", *arguments, *places, until="connected to node"
        )

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 20)

    def ask(self, data: bytes) -> bytes:
        with self.dial() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(100)

    def eventually_ask(self, data: bytes) -> bytes:
        """Ask again while there is no route yet, or no far end."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return self.ask(data)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


@pytest.fixture
def forward(mesh: AppMesh) -> Iterator[Forward]:
    with counting_server() as target:
        yield Forward(mesh, target)
        for name in ("near", "far"):
            if name in mesh.processes:
                mesh.end_app(name)


def test_a_port_here_leads_to_a_port_there(forward: Forward) -> None:
    forward.start_far()
    forward.start_near()
    assert forward.eventually_ask(b"x" * 300_000) == b"300000"


def test_the_far_node_may_be_named_by_its_key(forward: Forward) -> None:
    forward.start_far()
    forward.start_near(forward.mesh.key("beta"))
    assert forward.eventually_ask(b"four") == b"4"


def test_only_nodes_that_are_allowed_come_through(forward: Forward) -> None:
    forward.start_far(allow=forward.mesh.key("beta"))
    forward.start_near()
    with pytest.raises(ConnectionResetError):
        forward.ask(b"x")
    forward.mesh.end_app("far")
    forward.start_far(allow="everybody")
    assert forward.eventually_ask(b"x") == b"1"


def test_a_target_that_does_not_answer_is_a_reset(forward: Forward) -> None:
    forward.target = free_port()
    forward.start_far()
    forward.start_near()
    with pytest.raises(ConnectionResetError):
        forward.ask(b"x")
    assert "Connection refused" in forward.mesh.log("far")


def test_a_node_that_is_away_is_waited_for(forward: Forward) -> None:
    forward.start_far()
    forward.start_near()
    assert forward.eventually_ask(b"1") == b"1"
    forward.mesh.kill("alpha")
    waiting = forward.dial()
    forward.mesh.start_node("alpha")
    waiting.close()
    assert forward.eventually_ask(b"22") == b"2"


def test_many_at_once_get_their_own_bytes_back(mesh: AppMesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        forward = Forward(mesh, server.getsockname()[1])
        forward.start_far()
        forward.start_near("beta", "--max-connections", "8")
        asyncio.run(_echo_all(server, forward.port))
    for name in ("near", "far"):
        mesh.end_app(name)


async def _echo_all(server: socket.socket, port: int) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def one(seed: int) -> None:
        sent = random.Random(seed).randbytes(200_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        got = await reader.read(-1)
        writer.close()
        assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()

    async with (
        await asyncio.start_server(echo, sock=server.dup()),
        asyncio.timeout(30),
        asyncio.TaskGroup() as tasks,
    ):
        for seed in range(40):
            tasks.create_task(one(seed))


WRONG = [
    (CLIENT, ["--node", "a", "127.0.0.1:1", "beta"], "beta:22"),
    (CLIENT, ["--node", "a", "127.0.0.1:70000", "beta:1"], "1 to 65535"),
    (SERVER, ["--node", "a", "22", "127.0.0.1:22"], "--allow"),
    (SERVER, ["--node", "a", "--allow", "alpha", "22", "127.0.0.1:22"], "everybody"),
]


@pytest.mark.parametrize(("module", "arguments", "way_out"), WRONG)
def test_wrong_arguments_are_told_with_the_way_out(
    module: str, arguments: list[str], way_out: str
) -> None:
    command = [sys.executable, "-P", "-m", module, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert found.returncode == 2
    assert way_out in found.stderr


def test_a_port_that_is_taken_is_told_with_its_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-P", "-m", CLIENT, "--node", "a", place, "beta:1"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert found.returncode == 9
    assert place in found.stderr
