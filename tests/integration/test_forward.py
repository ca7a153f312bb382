"""Port forwarding over two real nodes, spoken to with plain sockets."""

import asyncio
import contextlib
import hashlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import cast

import pytest

from nodes.client import connect_node
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


class Echo(asyncio.DatagramProtocol):
    """Answers with what it got, and with who it thinks sent it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(b"%d " % addr[1] + data, addr)


class Talker:
    """A local program that sends datagrams and waits for the answers."""

    def __init__(self, port: int) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(("127.0.0.1", port))
        self.sock.settimeout(0)

    async def ask(self, data: bytes) -> tuple[bytes, bytes]:
        """Give the far side's source port and the data; ask again until an answer comes."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while True:
                await loop.sock_sendall(self.sock, data)
                try:
                    async with asyncio.timeout(0.5):
                        while True:
                            source, _, got = (await loop.sock_recv(self.sock, 65535)).partition(
                                b" "
                            )
                            if got == data:
                                return source, got
                except (TimeoutError, ConnectionRefusedError):
                    pass


@contextlib.asynccontextmanager
async def datagram_forward(
    mesh: AppMesh, *near: str, to: str = "beta"
) -> AsyncIterator[Callable[[], Talker]]:
    """Run an echo, and the pair in front of it; give what makes a local program that sends."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    forward = Forward(mesh, transport.get_extra_info("sockname")[1])
    try:
        forward.start_far("--udp")
        forward.start_near(to, "--udp", *near)
        with contextlib.ExitStack() as talkers:

            def talk() -> Talker:
                talker = Talker(forward.port)
                talkers.enter_context(talker.sock)
                return talker

            yield talk
    finally:
        for name in ("near", "far"):
            if name in mesh.processes:
                mesh.end_app(name)
        transport.close()


async def test_datagrams_find_their_way_there_and_back(mesh: AppMesh) -> None:
    async with datagram_forward(mesh, to=mesh.key("beta")) as talk:
        talkers = [talk() for _ in range(5)]
        answers = [await talker.ask(b"hello %d" % number) for number, talker in enumerate(talkers)]
        assert [data for _, data in answers] == [b"hello %d" % number for number in range(5)]
        sources = [source for source, _ in answers]
        assert len(set(sources)) == 5
        for size in (0, 1, 1200, 60_000 - 6):
            source, _ = await talkers[0].ask(bytes(size))
            assert source == sources[0]  # the same conversation


async def test_a_conversation_ends_for_room_or_after_silence_and_another_begins(
    mesh: AppMesh,
) -> None:
    async with datagram_forward(mesh, "--max-connections", "2", "--idle", "1") as talk:
        first, second, third = talk(), talk(), talk()
        source, _ = await first.ask(b"a")
        await second.ask(b"b")
        await third.ask(b"c")
        again, _ = await first.ask(b"a")
        assert again != source
        await asyncio.sleep(2.5)  # longer than --idle and a sweep: silence is what is tested
        assert (await first.ask(b"a"))[0] != again


@pytest.mark.parametrize("named", ["by name", "by key"])
async def test_only_answers_of_the_far_port_are_passed_on(mesh: AppMesh, named: str) -> None:
    forward = Forward(mesh, 0)
    forward.start_near("beta" if named == "by name" else mesh.key("beta"), "--udp")
    talker = Talker(forward.port)
    loop = asyncio.get_running_loop()
    async with (
        connect_node(mesh.socket("beta"), "far") as beta,
        connect_node(mesh.socket("alpha"), "stranger") as alpha,
        await beta.bind(MESH_PORT) as right,
        await beta.bind(MESH_PORT + 1) as wrong,
        await alpha.bind(MESH_PORT) as stranger,
        asyncio.timeout(20),
    ):
        with talker.sock:
            asked = None
            while asked is None:
                await loop.sock_sendall(talker.sock, b"question")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        asked = await right.receive()
            assert asked.origin == mesh.key("alpha")
            await right.send_to("alpha", asked.port, b"first")
            while await loop.sock_recv(talker.sock, 100) != b"first":
                pass
            await wrong.send_to("alpha", asked.port, b"another port")
            await stranger.send_to("alpha", asked.port, b"another node")
            await right.send_to("alpha", asked.port, b"last")
            assert await loop.sock_recv(talker.sock, 100) == b"last"
    mesh.end_app("near")


async def test_a_target_that_is_away_ends_nothing(mesh: AppMesh) -> None:
    async with datagram_forward(mesh) as talk:
        first = talk()
        await first.ask(b"before")
        mesh.end_app("far")
        await asyncio.get_running_loop().sock_sendall(first.sock, b"into nothing")
        dead = Forward(mesh, free_port())
        dead.start_far("--udp")
        for _ in range(5):
            await asyncio.get_running_loop().sock_sendall(first.sock, b"nobody listens")
        assert mesh.processes["far"].poll() is None
        assert "Traceback" not in mesh.log("far") + mesh.log("near")


async def test_datagrams_go_on_when_the_near_node_comes_back(mesh: AppMesh) -> None:
    async with datagram_forward(mesh) as talk:
        talker = talk()
        await talker.ask(b"before")
        mesh.kill("alpha")
        mesh.start_node("alpha")
        await talker.ask(b"after")


WRONG = [
    (CLIENT, ["--node", "a", "127.0.0.1:1", "beta"], "beta:22"),
    (CLIENT, ["--node", "a", "127.0.0.1:70000", "beta:1"], "1 to 65535"),
    (SERVER, ["--node", "a", "22", "127.0.0.1:22"], "--allow"),
    (SERVER, ["--node", "a", "--allow", "alpha", "22", "127.0.0.1:22"], "everybody"),
    (SERVER, ["--node", "a", "--allow", "everybody", "--offer", "a b", "1", "x:1"], "no type"),
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
