"""No packet leaves beside the tunnel while the kill switch is on, whatever dies or changes: by capture.

All the time a program sends to everywhere: UDP, TCP and ICMP, to DNS and other ports, IPv4 and IPv6, also to
the address of the exit itself.
"""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.vpn import INTERNET, NOISE_PORTS, ROUTER4, ExitStub, Veiled, exits, veiled

SETTLED = 1.0  # seconds of capture after something happened: some fifty rounds of the noise


@pytest.fixture
def machine() -> Iterator[Veiled]:
    with veiled() as found:
        yield found


async def watch(machine: Veiled) -> None:
    """Capture for a while; fails when something leaves that should not."""
    machine.start_capture()
    await asyncio.sleep(SETTLED)
    check(machine)


def check(machine: Veiled) -> None:
    leaks = machine.leaks(machine.stop_capture())
    assert not leaks, (leaks[:20], len(leaks))


async def test_the_capture_sees_all_that_leaves_while_the_vpn_is_off(machine: Veiled) -> None:
    machine.start_noise()
    machine.start_capture()
    await asyncio.sleep(SETTLED)
    leaks = machine.leaks(machine.stop_capture())
    for target in (*INTERNET, ROUTER4, machine.mesh.spaces.address("e")):
        to = [packet for packet in leaks if packet.target == target]
        assert {(p.proto, p.dport) for p in to if p.proto in {6, 17}} >= {
            (17, 53), (17, 443), (6, 53), (6, 853), (6, 443)
        }  # fmt: skip
        assert any(packet.proto in {1, 58} for packet in to)
    assert all(p.sport in NOISE_PORTS for p in leaks if p.proto == 17)


async def test_nothing_leaves_while_it_is_on_and_programs_are_killed(machine: Veiled) -> None:
    stub = ExitStub()
    mesh = machine.mesh
    async with exits((stub, mesh.socket("e"))):
        machine.start_client(mesh.key("e"))
        await machine.until("connected")
        machine.start_noise()
        await watch(machine)
        machine.start_capture()
        mesh.kill("vpn")
        await asyncio.sleep(SETTLED)
        mesh.kill("c")
        await asyncio.sleep(SETTLED)
        mesh.kill("broker")
        await asyncio.sleep(SETTLED)
        check(machine)
        mesh.run_broker()
        mesh.start_node("c", "e")
        machine.start_capture()
        machine.start_client(mesh.key("e"))
        await machine.until("connected")
        check(machine)
