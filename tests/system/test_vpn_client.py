"""The VPN client on a machine of its own: what it changes, what it refuses, and that all is put back."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.namespaces import ip
from tests.support.vpn import ExitStub, Veiled, exits, veiled

FILTER = "/proc/sys/net/ipv4/conf/all/rp_filter"


@pytest.fixture(scope="module")
def place() -> Iterator[Veiled]:
    with veiled(("e", "f")) as found:
        yield found


@pytest.fixture
async def machine(place: Veiled) -> AsyncIterator[Veiled]:
    before = place.state()
    yield place
    place.stop_client()
    assert place.state() == before


@pytest.fixture
async def stub(machine: Veiled) -> AsyncIterator[ExitStub]:
    found = ExitStub()
    async with exits((found, machine.mesh.socket("e"))):
        yield found


async def on(machine: Veiled, *arguments: str) -> dict:
    machine.start_client(*arguments, machine.mesh.key("e"))
    return await machine.until("connected")


def fails(machine: Veiled, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit code of a client that cannot work, and what it says."""
    done = subprocess.run(
        [
            "ip", "netns", "exec", machine.space, *before, sys.executable, "-P", "-m",
            "apps.vpn.client", "--node", "c", *arguments, "e",
        ],
        env=machine.home, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


async def test_a_lease_leads_everything_into_the_tunnel_and_off_puts_all_back(
    machine: Veiled, stub: ExitStub
) -> None:
    before = machine.state()
    told = await on(machine)
    assert told["addresses"] == ["10.66.0.2", "fd66::2"]
    assert "dev viscript0" in machine.run("ip", "route", "get", "8.8.8.8")
    assert "dev viscript0" in machine.run("ip", "-6", "route", "get", "2001:db8::1")
    assert "dev toe" in machine.run("ip", "route", "get", "8.8.8.8", "uid", "60917")
    assert "nameserver 10.66.0.1\nsearch example.org\n" in machine.run("cat", "/etc/resolv.conf")
    assert machine.mend("look")["on"]
    client = machine.mesh.processes.pop("vpn")
    client.terminate()
    client.wait(20)
    assert machine.mend("look", code=None)["on"]
    assert "policy drop" in machine.run("nft", "list", "ruleset")
    machine.mend("off")
    assert machine.state() == before


async def test_off_ends_a_client_that_nobody_stops(machine: Veiled, stub: ExitStub) -> None:
    await on(machine)
    machine.mend("off")
    assert machine.mesh.processes["vpn"].wait(30) == 0
    assert "switched off" in machine.mesh.log("vpn")


async def test_after_the_kill_of_a_client_the_next_takes_over_what_is_there(
    machine: Veiled, stub: ExitStub
) -> None:
    await on(machine)
    since = machine.mend("look")["since"]
    machine.mesh.kill("vpn")
    await on(machine)
    assert machine.mend("look")["since"] == since


async def test_when_one_exit_goes_the_next_takes_over(machine: Veiled, stub: ExitStub) -> None:
    other = ExitStub(9)
    mesh = machine.mesh
    async with exits((other, mesh.socket("f"))):
        machine.start_client(mesh.key("e"), mesh.key("f"))
        assert (await machine.until("connected"))["exit"] == mesh.key("e")
        stub.over.set()
        told = await machine.until("connected", mesh.key("f"))
        assert told["addresses"] == ["10.66.0.9", "fd66::9"]
        addresses = machine.run("ip", "-o", "addr", "show", "dev", "viscript0")
        assert "10.66.0.9/32" in addresses
        assert "10.66.0.2/32" not in addresses


WAITING = """\
# Connections from the address in the tunnel: how each ends.
import socket, threading
taker = socket.create_server(("10.66.0.2", 0))
opened = {"established": socket.create_connection(taker.getsockname())}
taken, _ = taker.accept()
opened["datagrams"] = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
opened["datagrams"].connect(("::ffff:8.8.8.8", 443))
opened["opening"] = socket.socket(socket.AF_INET6)
opened["opening"].bind(("fd66::2", 0))
print("ready", flush=True)
def wait(name, sock):
    try:
        sock.connect(("2001:4860:4860::8888", 443)) if name == "opening" else sock.recv(1)
        print(name, "goes on", flush=True)
    except OSError as error:
        print(name, type(error).__name__, flush=True)
for each in opened.items():
    threading.Thread(target=wait, args=each).start()
"""


async def test_connections_of_the_exit_before_end_at_once(machine: Veiled, stub: ExitStub) -> None:
    other = ExitStub(9)
    mesh = machine.mesh
    async with exits((other, mesh.socket("f"))):
        machine.start_client(mesh.key("e"), mesh.key("f"))
        await machine.until("connected", mesh.key("e"))
        with subprocess.Popen(
            ["ip", "netns", "exec", machine.space, sys.executable, "-P", "-c", WAITING],
            stdout=subprocess.PIPE, text=True,
        ) as program:  # fmt: skip
            assert program.stdout is not None
            try:
                assert program.stdout.readline() == "ready\n"
                stub.over.set()
                await machine.until("connected", mesh.key("f"))
                # To time out by themselves they would need two minutes.
                ended, _ = await asyncio.to_thread(program.communicate, timeout=40)
            finally:
                program.kill()
        assert sorted(ended.splitlines()) == [
            f"{name} ConnectionAbortedError" for name in ("datagrams", "established", "opening")
        ]


async def test_an_exit_that_falls_silent_is_left_for_the_next(
    machine: Veiled, stub: ExitStub
) -> None:
    mesh = machine.mesh
    async with exits((ExitStub(9), mesh.socket("f"))):
        machine.start_client(mesh.key("e"), mesh.key("f"))
        assert (await machine.until("connected"))["exit"] == mesh.key("e")
        stub.mute = True
        await machine.until("connected", mesh.key("f"))
        assert "nothing was heard of the exit" in mesh.log("vpn")


@pytest.mark.parametrize("value", ["1", "2"])
async def test_links_come_anew_where_there_is_a_reverse_path_filter(
    machine: Veiled, stub: ExitStub, value: str
) -> None:
    """It looks routes up as if there were no links, and would drop what they are answered."""
    before = machine.run("cat", FILTER).strip()
    machine.run("sh", "-c", f"echo {value} >{FILTER}")
    try:
        machine.mesh.kill("c")
        machine.start_client(machine.mesh.key("e"))
        await machine.until("connecting")
        machine.mesh.start_node("c", "e", "f")
        await machine.until("connected")
        assert machine.run("cat", FILTER).strip() == value
    finally:
        machine.stop_client()
        machine.run("sh", "-c", f"echo {before} >{FILTER}")


async def test_resolvers_that_somebody_writes_meanwhile_are_what_is_put_back(
    machine: Veiled, stub: ExitStub
) -> None:
    before, times = machine.resolv.read_text(), machine.resolv.stat()
    await on(machine)
    machine.run("sh", "-c", "echo nameserver 192.0.2.9 >/etc/resolv.conf")
    async with asyncio.timeout(40):
        while "nameserver 10.66.0.1\n" not in machine.run("cat", "/etc/resolv.conf"):
            await asyncio.sleep(0.1)
    machine.stop_client()
    assert machine.run("cat", "/etc/resolv.conf") == "nameserver 192.0.2.9\n"
    with machine.resolv.open("w") as file:  # as the fixture compares it
        file.write(before)
    os.utime(machine.resolv, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_without_cap_net_admin_that_is_said_and_nothing_was_changed(place: Veiled) -> None:
    before = place.state()
    code, said = fails(place, before=("setpriv", "--bounding-set", "-net_admin"))
    assert (code, "needs CAP_NET_ADMIN" in said, "run viscript as root" in said) == (77, True, True)
    assert place.state() == before


def test_the_vpn_of_another_home_is_left_alone(place: Veiled, tmp_path: Path) -> None:
    table = 'table inet viscript_vpn { comment "/elsewhere"; }'
    place.run("nft", table)
    try:
        code, said = fails(place)
        assert code == 9
        assert "the VPN of the home /elsewhere is on already" in said
        assert "viscript vpn off --home /elsewhere" in said
        assert place.mend("off")["on"] is False
        assert "/elsewhere" in place.run("nft", "list", "ruleset")
    finally:
        place.run("nft", "delete", "table", "inet", "viscript_vpn")


async def test_a_node_whose_links_would_be_cut_is_refused(place: Veiled) -> None:
    """It was started without rights to a user of its own."""
    mesh = place.mesh
    mesh.kill("c")
    mesh.start_node("c", "e", "f", options=("--egress-uid", "none"))
    await mesh.linked(("c", "e"))
    try:
        code, said = await asyncio.to_thread(fails, place)
        assert code == 77
        assert "do not belong to user 60917" in said
    finally:
        place.mend("off")
        mesh.kill("c")
        mesh.start_node("c", "e", "f")
        await mesh.linked(("c", "e"), ("c", "f"))


async def test_a_machine_that_was_killed_in_the_middle_of_anything_can_be_put_back(
    machine: Veiled, stub: ExitStub
) -> None:
    """The client is killed at some moment of its start, again and again."""
    before = machine.state()
    for moment in range(8):
        client = machine.start_client(machine.mesh.key("e"))
        await asyncio.sleep(0.15 * moment)
        client.kill()
        client.wait()
        machine.mend("off")
        assert machine.state() == before
    machine.mesh.processes.pop("vpn")


def test_what_is_left_over_without_a_record_is_found_and_removed(place: Veiled) -> None:
    before = place.state()
    home = place.mesh.folder
    place.run("nft", f'table inet viscript_vpn {{ comment "{home}"; }}')
    ip("-n", place.space, "rule", "add", "pref", "5193", "lookup", "51900", "protocol", "118")
    look = place.mend("look", code=1)
    assert not look["on"]
    assert {p["part"] for p in look["parts"] if p["todo"]} == {"kill switch", "routing rules"}
    place.mend("repair")
    assert place.state() == before
