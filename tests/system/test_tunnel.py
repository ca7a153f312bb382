"""Tunnels with real TUN devices, each node in a network namespace of its own."""

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nodes.client import PeerStats, Tunnel, TunnelRefused, connect_node
from nodes.local import Offload
from tests.support.ip_packets import udp4
from tests.support.namespaces import SpreadMesh, ip, spread_mesh
from tests.support.tun import IFF_NO_PI, IFF_TUN, MTU, inside, open_tun, tunnel

NEAR, FAR = "10.9.0.1", "10.9.0.2"
NEAR6, FAR6 = "fd09::1", "fd09::2"
PATIENCE = 30


@pytest.fixture(scope="module")
def mesh() -> Iterator[SpreadMesh]:
    with spread_mesh({"a": [], "b": ["a"]}) as mesh:
        asyncio.run(mesh.linked(("a", "b")))
        yield mesh


async def up(tunnel: Tunnel) -> None:
    async with asyncio.timeout(PATIENCE):
        async for event in tunnel.events():
            if event.what == "up":
                return


@contextlib.asynccontextmanager
async def both(
    mesh: SpreadMesh, *, offload: Offload = "auto", far_mtu: int = MTU
) -> AsyncIterator[tuple[Tunnel, Tunnel]]:
    near_to = tunnel(mesh, "a", f"{NEAR}/24", f"{NEAR6}/64")
    far_to = tunnel(mesh, "b", f"{FAR}/24", f"{FAR6}/64", mtu=far_mtu, offload=offload)
    async with near_to as near, far_to as far:
        await near.set_peer("b", [f"{FAR}/32", f"{FAR6}/128"])
        await far.set_peer(mesh.key("a"), [f"{NEAR}/32", f"{NEAR6}/128"])
        await up(near)
        await up(far)
        yield near, far


def carry(mesh: SpreadMesh, host: str, octets: int) -> bytes:
    """Send so many bytes over TCP from a to `host` at b; what came, at most the last 1,000."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = inside(mesh.spaces.of("b"), lambda: socket.socket(family))
    client = inside(mesh.spaces.of("a"), lambda: socket.socket(family))
    with server, client:
        server.bind((host, 0))
        server.listen()
        for sock in (server, client):
            sock.settimeout(PATIENCE)
        client.connect((host, server.getsockname()[1]))
        there, _ = server.accept()
        there.settimeout(PATIENCE)
        data = os.urandom(octets)
        sending = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(1)))
        sending.start()
        came = bytearray()
        with there:
            while piece := there.recv(1 << 20):
                came += piece
        sending.join()
    assert bytes(came) == data
    return bytes(came)


async def peer_of(tunnel: Tunnel) -> PeerStats:
    (peer,) = (await tunnel.stats()).peers
    return peer


@pytest.mark.parametrize("host", [FAR, FAR6])
async def test_tcp_goes_through_in_super_packets(mesh: SpreadMesh, host: str) -> None:
    async with both(mesh) as (near, far):
        await asyncio.to_thread(carry, mesh, host, 20_000_000)
        peer = await peer_of(near)
        assert peer.bytes_out >= 20_000_000
        assert peer.bytes_out / peer.packets_out > 2 * MTU
        assert "malformed" not in (await peer_of(far)).dropped
        assert (await near.stats()).offload == ["checksum", "tcp", "udp"]


async def test_without_offload_at_the_far_end_packets_are_single_and_whole(
    mesh: SpreadMesh,
) -> None:
    async with both(mesh, offload="off") as (near, far):
        await asyncio.to_thread(carry, mesh, FAR, 3_000_000)
        assert (await near.stats()).offload == []
        peer = await peer_of(far)
        assert peer.bytes_in / peer.packets_in <= MTU
        assert set(peer.dropped) <= {"down"}


def found_mtu(mesh: SpreadMesh) -> int:
    """What a sees as the MTU of its way to b, once it has heard that something was too big."""
    discover, always, mtu = 10, 2, 14  # IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU of linux/in.h
    near = inside(mesh.spaces.of("a"), lambda: socket.socket(type=socket.SOCK_DGRAM))
    with near:
        near.setsockopt(socket.IPPROTO_IP, discover, always)
        near.connect((FAR, 9))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                near.send(bytes(1380))
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    break
                raise
            time.sleep(0.02)
        return near.getsockopt(socket.IPPROTO_IP, mtu)


async def test_a_smaller_mtu_at_the_far_end_is_found(mesh: SpreadMesh) -> None:
    async with both(mesh, far_mtu=1300) as (near, _):
        assert await asyncio.to_thread(found_mtu, mesh) == 1300
        assert (await peer_of(near)).dropped["too_big"] > 0
        await asyncio.to_thread(carry, mesh, FAR, 2_000_000)


def echo(mesh: SpreadMesh, pings: int) -> list[bytes]:
    """UDP there and back, one after another."""
    far = inside(mesh.spaces.of("b"), lambda: socket.socket(type=socket.SOCK_DGRAM))
    near = inside(mesh.spaces.of("a"), lambda: socket.socket(type=socket.SOCK_DGRAM))
    found = []
    with far, near:
        far.bind((FAR, 0))
        near.bind((NEAR, 0))
        far.settimeout(PATIENCE)
        near.settimeout(PATIENCE)
        for number in range(pings):
            near.sendto(bytes([number]) * 100, far.getsockname())
            data, where = far.recvfrom(2000)
            assert where[0] == NEAR
            far.sendto(data[::-1], where)
            found.append(near.recv(2000))
    return found


async def test_udp_goes_there_and_back(mesh: SpreadMesh) -> None:
    async with both(mesh):
        assert await asyncio.to_thread(echo, mesh, 50) == [bytes([n]) * 100 for n in range(50)]


def inject(namespace: str, *packets: bytes) -> None:
    """Send packets as they are into the device, as a program with CAP_NET_RAW can."""
    raw = inside(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0800))
    with raw:
        raw.bind(("tun0", 0x0800))
        for packet in packets:
            raw.sendto(packet, ("tun0", 0x0800))


async def test_what_has_a_foreign_source_is_not_written(mesh: SpreadMesh) -> None:
    async with both(mesh) as (_, far):
        before = (await peer_of(far)).packets_in
        foreign = [udp4(b"x", source=f"10.9.0.{at}", destination=FAR) for at in range(3, 13)]
        await asyncio.to_thread(inject, mesh.spaces.of("a"), *foreign, udp4(b"good"))

        def all_came(peer: PeerStats) -> bool:  # in any order: they are of several flows
            return (
                peer.dropped.get("foreign_source", 0) >= len(foreign) and peer.packets_in > before
            )

        async with asyncio.timeout(PATIENCE):
            while not all_came(peer := await peer_of(far)):
                await asyncio.sleep(0.02)
        assert peer.dropped["foreign_source"] == len(foreign)


async def test_the_kernel_takes_every_header_that_is_made_anew(mesh: SpreadMesh) -> None:
    """Nothing that passes our checks is refused by the kernel, and nothing else gets there."""
    async with both(mesh) as (_, far):
        await asyncio.to_thread(carry, mesh, FAR, 5_000_000)
        await asyncio.to_thread(carry, mesh, FAR6, 5_000_000)
        assert "device" not in (await peer_of(far)).dropped


async def test_the_session_outlives_the_link(mesh: SpreadMesh) -> None:
    """A connection inside of the tunnel stands while the link is gone for a while."""
    async with both(mesh):
        carrying = asyncio.create_task(asyncio.to_thread(carry, mesh, FAR, 60_000_000))
        await asyncio.sleep(0.2)
        mesh.spaces.cut("a", "b")
        await asyncio.sleep(1)
        mesh.spaces.mend("a", "b")
        await carrying


async def test_the_device_lasts_while_the_app_holds_it_and_goes_with_the_node(
    mesh: SpreadMesh,
) -> None:
    async with connect_node(mesh.socket("a"), "vpn") as node:
        space = mesh.spaces.of("a")
        descriptor = inside(space, lambda: open_tun("tun7"))
        held = await node.tunnel(descriptor, "tun7", mtu=MTU)
        await held.close()
        assert "tun7" in _links(space)
        os.close(descriptor)
        async with asyncio.timeout(PATIENCE):
            while "tun7" in await asyncio.to_thread(_links, space):
                await asyncio.sleep(0.02)


async def test_a_device_that_is_down_for_a_while_goes_on(mesh: SpreadMesh) -> None:
    async with both(mesh):
        await asyncio.to_thread(echo, mesh, 3)
        ip("-n", mesh.spaces.of("a"), "link", "set", "tun0", "down")
        ip("-n", mesh.spaces.of("a"), "link", "set", "tun0", "up")
        await asyncio.to_thread(echo, mesh, 3)


async def test_a_device_that_vanishes_is_told_of_and_the_node_stays_quiet(mesh: SpreadMesh) -> None:
    async with both(mesh) as (near, _):
        subprocess.run(["ip", "-n", mesh.spaces.of("a"), "link", "del", "tun0"], check=True)
        async with asyncio.timeout(PATIENCE):
            async for event in near.events():
                if event.what == "down" and not event.peer:
                    break
        before = _cpu(mesh.processes["a"].pid)
        await asyncio.sleep(1)
        assert _cpu(mesh.processes["a"].pid) - before < 0.5


async def test_what_is_no_tun_device_with_headers_is_refused(mesh: SpreadMesh) -> None:
    space = mesh.spaces.of("a")
    plain = inside(space, lambda: open_tun("tun8", IFF_TUN | IFF_NO_PI))
    null = os.open("/dev/null", os.O_RDWR)
    try:
        async with connect_node(mesh.socket("a"), "vpn") as node:
            with pytest.raises(TunnelRefused, match="IFF_VNET_HDR"):
                await node.tunnel(plain, "tun8", mtu=MTU)
            with pytest.raises(TunnelRefused, match="it is no TUN device"):
                await node.tunnel(null, "null", mtu=MTU)
            with pytest.raises(TunnelRefused, match="handed no device over"):
                await node._connection.tunnel_stats()
    finally:
        os.close(plain)
        os.close(null)


async def test_both_directions_at_once_do_not_wait_for_each_other(mesh: SpreadMesh) -> None:
    """What fills both ways to the brim leaves none of them standing."""
    async with both(mesh):
        await asyncio.to_thread(_duplex, mesh, 40_000_000)


def _duplex(mesh: SpreadMesh, octets: int) -> None:
    server = inside(mesh.spaces.of("b"), socket.socket)
    client = inside(mesh.spaces.of("a"), socket.socket)
    with server, client:
        server.bind((FAR, 0))
        server.listen()
        client.settimeout(PATIENCE)
        client.connect(server.getsockname())
        there, _ = server.accept()
        there.settimeout(PATIENCE)
        counts: list[int] = []

        def send(sock: socket.socket) -> None:
            sock.sendall(bytes(octets))
            sock.shutdown(socket.SHUT_WR)

        def receive(sock: socket.socket) -> None:
            total = 0
            while piece := sock.recv(1 << 20):
                total += len(piece)
            counts.append(total)

        threads = [
            threading.Thread(target=work, args=(sock,))
            for sock in (client, there)
            for work in (send, receive)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        there.close()
    assert counts == [octets, octets]


def _links(space: str) -> str:
    return subprocess.run(
        ["ip", "-n", space, "link"], capture_output=True, text=True, check=True
    ).stdout


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
