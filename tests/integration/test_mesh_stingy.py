"""A node that takes all and gives nothing back costs its peers little, and nobody else anything."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.client import StreamReset
from tests.support.mesh import Mesh, ends, pair, running_mesh

MIB = 1 << 20
NODE = "\nfrom nodes.node import start\nstart()\n"
NO_CREDIT = "from nodes.flows import Flows\nFlows.took = lambda self, *rest: None" + NODE
NO_ACKNOWLEDGEMENT = (
    "from nodes.acks import Ack, LANES\npack = Ack.pack\n"
    "Ack.pack = lambda ack: pack(ack._replace(expected=(1,) * LANES))" + NODE
)


@pytest.fixture(params=[NO_CREDIT, NO_ACKNOWLEDGEMENT], ids=["credit", "acknowledgement"])
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """a - r - b, and s, which never gives what it should, at r too."""
    with running_mesh({"r": [], "a": ["r"], "b": ["r"]}, spare=["s"]) as mesh:
        mesh.start_program("s", request.param, "--link", "r")
        asyncio.run(mesh.linked(("a", "r"), ("b", "r"), ("s", "r")))
        yield mesh


def memory(mesh: Mesh, name: str) -> int:
    """Bytes that a process holds."""
    statm = Path(f"/proc/{mesh.processes[name].pid}/statm").read_text()
    return int(statm.split()[1]) * 4096


async def test_who_gives_nothing_back_costs_a_window_and_stops_nobody_else(mesh: Mesh) -> None:
    async with ends(mesh, "a", "s", patience=90) as (near, stingy), ends(mesh, "a", "b") as apps:
        stuck = []
        for port in range(20):
            there, _here = await pair(near, stingy, 100 + port)
            stuck.append((there, asyncio.create_task(there.write(bytes(16 * MIB)))))
        before = memory(mesh, "a")
        there, here = await pair(*apps, 7)
        for number in range(8):
            data = bytes([number]) * MIB
            writing = asyncio.create_task(there.write(data))
            got = b""
            while len(got) < len(data):
                got += await here.read()
            await writing
            assert got == data
        assert not any(writing.done() for _, writing in stuck)
        assert memory(mesh, "a") < before + 40 * MIB
        assert memory(mesh, "r") < before + 80 * MIB
        for stream, writing in stuck:
            await stream.reset()
            with pytest.raises(StreamReset):
                await writing
