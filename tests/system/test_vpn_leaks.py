"""No packet leaves beside the tunnel while the kill switch is on, whatever dies or changes: by capture.

All the time a program sends to everywhere: UDP, TCP and ICMP, to DNS and other ports, IPv4 and IPv6, also to
the address of the exit itself. After each test everything is put back as it was.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.namespaces import ip
from tests.support.vpn import (
    HOST4,
    INTERNET,
    NOISE_PORTS,
    ROUTER4,
    ROUTER6,
    ExitStub,
    Seen,
    Veiled,
    exits,
    veiled,
)

SETTLED = 1.0  # seconds of capture after something happened: some tens of rounds of the noise


@pytest.fixture(scope="module")
def place() -> Iterator[Veiled]:
    with veiled() as found:
        yield found


@pytest.fixture
async def machine(place: Veiled) -> AsyncIterator[Veiled]:
    before = place.state()
    place.start_noise()
    yield place
    place.stop_noise()
    place.stop_client()
    assert place.state() == before


@pytest.fixture
async def stub(machine: Veiled) -> AsyncIterator[ExitStub]:
    found = ExitStub()
    async with exits((found, machine.mesh.socket("e"))):
        yield found


async def on(machine: Veiled, *arguments: str) -> None:
    machine.start_client(*arguments, machine.mesh.key("e"))
    await machine.until("connected")


async def seen(machine: Veiled) -> list[Seen]:
    """What leaves in a while that is neither of links nor of the bus."""
    machine.start_capture()
    await asyncio.sleep(SETTLED)
    return machine.leaks(machine.stop_capture())


async def tight(machine: Veiled) -> None:
    leaks = await seen(machine)
    assert not leaks, (leaks[:20], len(leaks))


def ended(machine: Veiled) -> None:
    leaks = machine.leaks(machine.stop_capture())
    assert not leaks, (leaks[:20], len(leaks))


async def test_the_capture_sees_all_that_leaves_while_the_vpn_is_off(machine: Veiled) -> None:
    leaks = await seen(machine)
    for target in (*INTERNET, ROUTER4, ROUTER6, machine.mesh.spaces.address("e")):
        to = [packet for packet in leaks if packet.target == target]
        assert {(p.proto, p.dport) for p in to if p.proto in {6, 17}} >= {
            (17, 53), (17, 443), (6, 53), (6, 853), (6, 443)
        }  # fmt: skip
        assert any(packet.proto in {1, 58} for packet in to)
    assert all(p.sport in NOISE_PORTS for p in leaks if p.proto == 17)


async def test_nothing_leaves_from_the_first_moment_on(machine: Veiled) -> None:
    """There is no exit yet: what stands before the tunnel does is enough."""
    machine.start_client(machine.mesh.key("e"))
    await machine.until("connecting")
    await tight(machine)


async def test_nothing_leaves_when_client_node_and_broker_are_killed(
    machine: Veiled, stub: ExitStub
) -> None:
    mesh = machine.mesh
    await on(machine)
    await tight(machine)
    for name in ("vpn", "c", "broker"):
        machine.start_capture()
        mesh.kill(name)
        await asyncio.sleep(SETTLED)
        ended(machine)
    mesh.run_broker()
    machine.start_capture()
    mesh.start_node("c", "e")
    await on(machine)
    ended(machine)


async def test_nothing_leaves_when_all_are_killed_at_once(machine: Veiled, stub: ExitStub) -> None:
    mesh = machine.mesh
    await on(machine)
    machine.start_capture()
    for name in ("broker", "vpn", "c"):
        mesh.processes[name].kill()
    for name in ("broker", "vpn", "c"):
        mesh.kill(name)
    await asyncio.sleep(SETTLED)
    ended(machine)
    mesh.run_broker()
    mesh.start_node("c", "e")
    await mesh.linked(("c", "e"))


async def test_nothing_leaves_while_the_exit_cannot_be_reached(
    machine: Veiled, stub: ExitStub
) -> None:
    await on(machine)
    machine.mesh.spaces.cut("c", "e")
    try:
        await machine.until("connecting")
        await tight(machine)
    finally:
        machine.mesh.spaces.mend("c", "e")
    machine.start_capture()
    await machine.until("connected")
    ended(machine)


async def test_nothing_leaves_when_the_exit_goes_and_comes(machine: Veiled, stub: ExitStub) -> None:
    await on(machine)
    machine.start_capture()
    stub.refusal = "closed for today"
    stub.over.set()
    told = await machine.until("connecting")
    ended(machine)
    assert "ended" in told["trouble"] or "closed" in told["trouble"]
    await tight(machine)
    stub.over.clear()
    stub.refusal = None
    machine.start_capture()
    await machine.until("connected")
    ended(machine)


async def test_nothing_leaves_when_the_default_route_changes(
    machine: Veiled, stub: ExitStub
) -> None:
    await on(machine)
    space = machine.space
    outside = machine.mesh.spaces.outside
    ip("-n", space, "route", "replace", "default", "via", outside)
    await tight(machine)
    ip("-n", space, "route", "del", "default")
    await tight(machine)
    ip("-n", space, "route", "add", "default", "via", ROUTER4)
    await tight(machine)
    assert (await machine.told())["state"] == "connected"


async def test_routes_of_a_rogue_network_lead_nothing_out(machine: Veiled, stub: ExitStub) -> None:
    """More specific than the default route (TunnelVision), and public addresses as if on the link."""
    await on(machine)
    space = machine.space
    networks = ("0.0.0.0/1", "128.0.0.0/1", "8.8.8.8/32", "198.51.100.0/24", "::/1", "8000::/1")
    for network in networks:
        router = ROUTER6 if ":" in network else ROUTER4
        ip("-n", space, "route", "add", network, "via", router, "dev", "toe")
    ip("-n", space, "addr", "add", "8.8.8.1/24", "dev", "toe")
    await tight(machine)
    assert "dev viscript0" in machine.run("ip", "route", "get", "8.8.8.8")
    ip("-n", space, "addr", "del", "8.8.8.1/24", "dev", "toe")
    for network in networks:
        router = ROUTER6 if ":" in network else ROUTER4
        ip("-n", space, "route", "del", network, "via", router, "dev", "toe")


async def test_nothing_leaves_while_the_exit_is_changed(machine: Veiled, stub: ExitStub) -> None:
    await on(machine)
    machine.start_capture()
    client = machine.mesh.processes.pop("vpn")
    client.terminate()
    client.wait(20)
    await asyncio.sleep(SETTLED)
    await on(machine)
    ended(machine)


async def test_with_lan_private_networks_are_reached_and_nothing_else(
    machine: Veiled, stub: ExitStub
) -> None:
    ip("-n", machine.space, "addr", "add", "192.168.7.2/24", "dev", "toe")
    await on(machine, "--lan")
    # A network that calls public addresses its own does not get them (TunnelCrack's LocalNet attack).
    ip("-n", machine.space, "addr", "add", "8.8.8.1/24", "dev", "toe")
    machine.stop_noise()
    machine.start_noise("192.168.7.1")
    arp = ("neigh", "replace", "192.168.7.1", "lladdr", "02:00:00:00:00:01", "dev", "toe")
    ip("-n", machine.space, *arp, "nud", "permanent")
    leaks = await seen(machine)
    links = {machine.mesh.spaces.address("e")}  # 10.78.0.0/16 is private, too
    assert {packet.target for packet in leaks} >= {"192.168.7.1"}
    assert {packet.target for packet in leaks} <= {"192.168.7.1", *links}
    assert {p.dport for p in leaks if p.proto in {6, 17}} == {443}  # and no name is asked for
    ip("-n", machine.space, "addr", "del", "8.8.8.1/24", "dev", "toe")
    ip("-n", machine.space, "addr", "del", "192.168.7.2/24", "dev", "toe")


async def test_what_is_excluded_goes_beside_the_tunnel(machine: Veiled, stub: ExitStub) -> None:
    await on(machine, "--exclude", "198.51.100.0/24", "--exclude", "2001:4860::/32")
    leaks = await seen(machine)
    assert {packet.target for packet in leaks} == {"198.51.100.7", "2001:4860:4860::8888"}
    assert {p.dport for p in leaks if p.proto in {6, 17}} == {443}
    assert {p.source for p in leaks if p.target == "198.51.100.7"} == {HOST4}


async def test_with_only_the_rest_goes_as_it_did_but_names(machine: Veiled, stub: ExitStub) -> None:
    await on(machine, "--only", "198.51.100.0/24")
    leaks = await seen(machine)
    targets = {packet.target for packet in leaks}
    assert "8.8.8.8" in targets
    assert "198.51.100.7" not in targets
    assert not {53, 853} & {p.dport for p in leaks if p.proto in {6, 17}}
    machine.start_capture()
    machine.mesh.kill("vpn")
    await asyncio.sleep(SETTLED)
    left = machine.leaks(machine.stop_capture())
    assert "198.51.100.7" not in {packet.target for packet in left}


async def test_with_own_dns_names_are_asked_for_outside_and_nothing_else(
    machine: Veiled, stub: ExitStub
) -> None:
    before = machine.run("cat", "/etc/resolv.conf")
    await on(machine, "--own-dns", "--exclude", "8.8.8.8/32")
    assert machine.run("cat", "/etc/resolv.conf") == before
    leaks = await seen(machine)
    assert {packet.target for packet in leaks} == {"8.8.8.8"}
    assert 53 in {packet.dport for packet in leaks}


async def test_what_comes_for_the_address_in_the_tunnel_from_outside_is_dropped(
    machine: Veiled, stub: ExitStub
) -> None:
    """Who is beside us may not find out which address we have in the tunnel (CVE-2019-14899)."""
    await on(machine)
    router = machine.mesh.spaces.of("e")
    ip("-n", router, "route", "add", "10.66.0.2/32", "via", HOST4)
    try:
        machine.start_capture()
        done = machine.outside("ping", "-c", "3", "-i", "0.2", "-W", "1", "10.66.0.2")
        ended(machine)
        assert "0 received" in done
    finally:
        ip("-n", router, "route", "del", "10.66.0.2/32")


def rules_of_ours(machine: Veiled) -> list[str]:
    lines = machine.run("ip", "rule").splitlines() + machine.run("ip", "-6", "rule").splitlines()
    return [line for line in lines if line.startswith("519")]


async def test_without_the_routing_rules_the_kill_switch_alone_holds(
    machine: Veiled, stub: ExitStub
) -> None:
    await on(machine)
    wanted = rules_of_ours(machine)
    for family in ("-4", "-6"):
        for preference in ("5191", "5193"):
            ip("-n", machine.space, family, "rule", "del", "pref", preference)
    assert "dev toe" in machine.run("ip", "route", "get", "8.8.8.8")
    await tight(machine)
    blocked = machine.mend("look", code=1)["blocked"]
    assert all(blocked[name][0] > 0 for name in ("dns", "ipv4", "ipv6"))
    machine.start_capture()
    machine.mesh.kill("vpn")
    await asyncio.sleep(SETTLED)
    ended(machine)
    look = machine.mend("look", code=1)
    assert {part["part"] for part in look["parts"] if part["todo"]} == {"routing rules"}
    machine.mend("repair")
    assert sorted(rules_of_ours(machine)) == sorted(wanted)


async def test_without_the_kill_switch_the_routing_rules_hold_until_it_is_repaired(
    machine: Veiled, stub: ExitStub
) -> None:
    await on(machine)
    machine.run("nft", "flush", "ruleset")
    await tight(machine)
    look = machine.mend("look", code=1)
    assert [part["todo"] for part in look["parts"] if part["todo"]] == [
        "viscript vpn doctor --repair"
    ]
    machine.mend("repair")
    assert "policy drop" in machine.run("nft", "list", "ruleset")
    assert "10.66.0.2" in machine.run("nft", "list", "set", "inet", "viscript_vpn", "own4")
