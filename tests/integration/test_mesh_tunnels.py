"""What a node says to an app that wants a tunnel, as far as that needs no rights."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from nodes.client import TunnelRefused, connect_node
from tests.support.mesh import Mesh, both_ends, running_mesh


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with running_mesh({"alpha": [], "beta": ["alpha"]}) as mesh:
        asyncio.run(mesh.linked(("alpha", "beta")))
        yield mesh


@pytest.fixture
def null() -> Iterator[int]:
    descriptor = os.open("/dev/null", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


async def test_what_is_no_tun_device_is_refused_and_the_app_goes_on(mesh: Mesh, null: int) -> None:
    near, far = socket.socketpair()
    async with connect_node(mesh.socket("alpha")) as node:
        for descriptor in (null, near.fileno()):
            with pytest.raises(TunnelRefused, match="device tun0 cannot be used: it is no TUN"):
                await node.tunnel(descriptor, "tun0", mtu=1420)
        async with connect_node(mesh.socket("beta")) as other:
            there, here = await both_ends(node, other, 7)
            async with there, here:
                await there.write(b"hello")
                assert await here.read() == b"hello"
    near.close()
    far.close()


async def test_a_caller_keeps_its_own_descriptor(mesh: Mesh, null: int) -> None:
    async with connect_node(mesh.socket("alpha")) as node:
        with pytest.raises(TunnelRefused):
            await node.tunnel(null, "tun0", mtu=1420)
    assert os.write(null, b"still mine") == 10


async def test_peers_and_figures_need_a_tunnel(mesh: Mesh) -> None:
    async with connect_node(mesh.socket("alpha")) as node:
        connection = node._connection
        for asked in (
            connection.set_peer("beta", ["10.0.0.0/8"]),
            connection.tunnel_stats(),
            connection.untunnel(),
        ):
            with pytest.raises(TunnelRefused, match="handed no device over"):
                await asked
