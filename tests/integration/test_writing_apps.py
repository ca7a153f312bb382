"""The program that docs/writing-apps.md is about does what the document says."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes import api, offers
from nodes.client import Node, NodeError, connect_node
from tests.support.forwarding import AppMesh, app_mesh
from tests.support.mesh import PATIENCE

DOCUMENT = Path(__file__).parents[2] / "docs" / "writing-apps.md"
SERVER, CLIENT = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def mesh() -> Iterator[AppMesh]:
    with app_mesh(tracker="tracker", echo="app") as running:
        asyncio.run(running.linked(("alpha", "beta")))
        running.start_app("tracker", "apps.tracker.server", until="answers tracker.find")
        program = running.folder / "echo.py"
        program.write_text(SERVER)
        running._spawn("echo", [str(program)], running._environment("echo"))
        yield running


async def ask(node: Node) -> bytes:
    names: dict[str, object] = {"Node": Node}
    exec(CLIENT, names)
    answer: bytes = await names["ask"](node)  # type: ignore[operator]
    return answer


async def eventually_ask(mesh: AppMesh) -> bytes:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with connect_node(mesh.socket("beta")) as node:
                    return await ask(node)
            except NodeError:
                await asyncio.sleep(0.1)


async def test_it_answers_and_is_found(mesh: AppMesh) -> None:
    assert await eventually_ask(mesh) == b"hello"
    assert mesh.key("beta") in mesh.log("echo")
    async with mesh.bus() as bus, asyncio.timeout(PATIENCE):
        found: list[offers.Announcement] = []
        while not found:
            body = await bus.request(offers.FIND, api.pack(offers.Search("echo")), timeout=5)
            found = api.unpack(body, offers.Found).offers
            await asyncio.sleep(0.05)
    assert offers.verified(found[0], time.time()).labels == {"node": "alpha"}
    assert (found[0].key, found[0].port) == (mesh.key("alpha"), 7)


async def test_it_outlives_its_node(mesh: AppMesh) -> None:
    mesh.kill("alpha")
    mesh.start_node("alpha")
    mesh.kill("beta")
    mesh.start_node("beta", "alpha")
    assert await eventually_ask(mesh) == b"hello"


def test_it_ends_when_it_is_told_to(mesh: AppMesh) -> None:
    mesh.end_app("echo")
