"""A machine behind a VPN whose links are dialled by others. It has a file of its own: of a mesh in namespaces
there is one at a time in a process.
"""

import asyncio

from tests.support.vpn import ExitStub, Veiled, exits, veiled


def test_links_that_others_dial_go_on_and_come_anew() -> None:
    """A SYN-ACK has no owner: the ports where links are taken are let pass."""
    with veiled(dials=False) as machine:
        asyncio.run(dialled_anew(machine))
        machine.stop_client()


async def dialled_anew(machine: Veiled) -> None:
    mesh = machine.mesh
    async with exits((ExitStub(), mesh.socket("e"))):
        machine.start_client(mesh.key("e"))
        await machine.until("connected")
    mesh.kill("e")
    mesh.start_node("e", "c")
    await mesh.linked(("c", "e"))
    async with exits((ExitStub(), mesh.socket("e"))):
        await machine.until("connected")
