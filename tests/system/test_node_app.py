"""An app in Perl, from the specification alone, at real nodes: streams, first data and datagrams."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.client import connect_node
from tests.support.mesh import Mesh, running_mesh

APP = str(Path(__file__).parents[2] / "examples/node-app.pl")
PATIENCE = 30


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """a - r - b, and no link between a and b; the app of the example serves at b."""
    with running_mesh({"r": [], "a": ["r"], "b": ["r"]}) as mesh:
        asyncio.run(mesh.linked(("a", "r"), ("b", "r")))
        command = ["perl", APP, str(mesh.socket("b")), "serve", "7"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield mesh
            server.kill()


def ask(mesh: Mesh, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["perl", APP, str(mesh.socket("a")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_two_of_them_talk_through_a_relay(mesh: Mesh) -> None:
    done = ask(mesh, "ask", "b", "7", "hello mesh")
    assert (done.stdout, done.stderr) == ("stream: HELLO MESH\ndatagram: HELLO MESH\n", "")
    assert done.returncode == 0


async def test_it_talks_with_an_app_in_python(mesh: Mesh) -> None:
    async with connect_node(mesh.socket("a")) as node, asyncio.timeout(PATIENCE):
        async with await node.open_stream("b", 7, early=b"first, ") as stream:
            await stream.write(b"and the rest")
            stream.write_eof()
            assert await stream.read() == b"FIRST, AND THE REST"
        async with await node.bind() as port:
            await port.send_to("b", 7, b"datagram")
            assert (await port.receive())[:2] == (b"DATAGRAM", mesh.key("b"))


def test_what_fails_it_says_and_ends_with_1(mesh: Mesh) -> None:
    done = ask(mesh, "ask", "b", "8", "hello")
    assert done.returncode == 1
    assert "failed with code 3" in done.stderr
    assert ask(mesh, "ask", "b").returncode == 2
