"""Which nodes become neighbours, as real processes: behind NAT, by suggestion, by allow-list."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from nodes import api
from nodes.client import connect_node
from tests.support.mesh import PATIENCE, Mesh, both_ends, running_mesh


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    """A mesh of one node r; the others have keys and are started by the test."""
    with running_mesh({"r": []}, spare=["a", "b", "c"]) as mesh:
        yield mesh


async def says(mesh: Mesh, name: str, wanted: Callable[[str], bool]) -> str:
    """Wait until the log of a node is as wanted."""
    async with asyncio.timeout(PATIENCE):
        while not wanted(mesh.log(name)):
            await asyncio.sleep(0.05)
    return mesh.log(name)


async def streams(mesh: Mesh, near: str, far: str) -> None:
    async with connect_node(mesh.socket(near)) as a, connect_node(mesh.socket(far)) as b:
        one, other = await both_ends(a, b, 7)
        async with one, other:
            for sender, receiver in ((one, other), (other, one)):
                await sender.write(b"hello")
                assert await receiver.read() == b"hello"


async def test_nodes_that_cannot_be_dialled_reach_each_other_through_a_neighbour(
    mesh: Mesh,
) -> None:
    mesh.start_node("a", "r", options=["--listen", "none"])
    mesh.start_node("b", "r", options=["--listen", "none"])
    await mesh.linked(("a", "r"), ("b", "r"))
    await streams(mesh, "a", "b")


async def test_to_dial_a_node_that_cannot_be_dialled_is_a_problem_with_a_name(mesh: Mesh) -> None:
    mesh.start_node("a", options=["--listen", "none"])
    mesh.start_node("b", "a")
    log = await says(mesh, "b", lambda log: "cannot be dialled" in log)
    assert log.count("cannot be dialled") == 1


async def test_neighbours_with_and_without_data_connections_carry_the_same_streams(
    mesh: Mesh,
) -> None:
    mesh.start_node("a", "r", options=["--data", "curve"])
    mesh.start_node("b", "r")
    await mesh.linked(("a", "r"), ("b", "r"))
    await streams(mesh, "a", "b")
    await streams(mesh, "b", "a")


async def test_a_node_links_by_itself_to_what_the_manager_suggests(mesh: Mesh) -> None:
    mesh.start_node("a", options=["--auto-peers", "1"])
    await mesh.linked(("a", "r"))
    await streams(mesh, "a", "r")


async def test_a_node_with_an_allow_list_takes_nobody_else(mesh: Mesh) -> None:
    mesh.start_node("a", options=["--allow", mesh.key("b")])
    mesh.start_node("b", "a")
    await mesh.linked(("a", "b"))
    mesh.start_node("c", "a")
    await says(mesh, "c", lambda log: "may not be a neighbour" in log)
    assert (await mesh.status("a")).links == [mesh.key("b")]


async def test_a_node_does_not_dial_whom_its_own_allow_list_leaves_out(mesh: Mesh) -> None:
    mesh.start_node("a", "r", options=["--allow", mesh.key("b")])
    await says(mesh, "a", lambda log: "allow-list" in log)
    assert (await mesh.status("r")).links == []


async def test_a_link_is_measured_and_the_manager_hears_of_it(mesh: Mesh) -> None:
    mesh.start_node("a", "r")
    await mesh.linked(("a", "r"))
    async with mesh.bus() as bus, asyncio.timeout(PATIENCE):
        while True:
            edges = api.unpack(await bus.request(api.NODES), api.Nodes).edges
            if edges and edges[0].rtt is not None:
                break
            await asyncio.sleep(0.1)
    assert 0 < edges[0].rtt < 10
