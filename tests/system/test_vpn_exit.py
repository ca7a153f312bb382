"""The exit of the VPN on a machine of its own: where its guests get, and where they do not."""

import json
from collections.abc import Iterator

import pytest

from tests.support.vpn_exit import (
    EVERYBODY,
    HOST,
    HOST6,
    INTERNET,
    INTERNET6,
    PRIVATE,
    Guest,
    Outlet,
    Service,
    outlet,
)

# Sends TEXT from a port of ours to ADDRESS PORT and says what came back: SPORT SOURCE ADDRESS PORT TEXT.
SEND = """
import socket, sys
sport, source, address, port, text = sys.argv[1:]
sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
sock.bind((source, int(sport)))
sock.sendto(text.encode(), (address, int(port)))
print(sock.recvfrom(4096)[0].decode(), end="")
"""
# The same, but nobody is waited for.
THROW = SEND.replace('print(sock.recvfrom(4096)[0].decode(), end="")', "")
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20).close()
except OSError as error:
    print(type(error).__name__, error.errno)
else:
    print("open")
"""

LISTEN = """
import socket
listener = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    listener.accept()
"""


def send(guest: Guest, text: str, sport: int = 0, target: str = INTERNET, port: int = 7000) -> str:
    """What comes back for a datagram."""
    source = "::" if ":" in target else ""
    return guest.python(SEND, str(sport), source, target, str(port), text)


def throw(guest: Guest, text: str, source: str, target: str = INTERNET, port: int = 7000) -> None:
    guest.python(THROW, "0", source, target, str(port), text)


def connect(guest: Guest, target: str, port: int) -> str:
    return guest.python(CONNECT, target, str(port)).strip()


@pytest.fixture(scope="module")
def out() -> Iterator[Outlet]:
    with outlet() as made:
        made.serve_names()
        made.start_exit(*EVERYBODY)
        yield made
        made.stop_exit()


@pytest.fixture(scope="module")
def guest(out: Outlet) -> Guest:
    found = out.guest("a")
    assert found.lease is not None, found.heard
    found.resolve_by_exit()
    return found


@pytest.fixture(scope="module")
def echo(out: Outlet) -> Service:
    return out.echo()


def test_a_guest_gets_a_page_by_name_over_both_families(out: Outlet, guest: Guest) -> None:
    web = ("-u", "-m", "http.server", "8080", "--bind", "::", "--directory", str(out.mesh.folder))
    (out.mesh.folder / "page").write_text("there it is")
    out.serve("python3", *web, until="Serving")
    for family in ("-4", "-6"):
        page = guest.run("curl", "-sS", family, "-m", "30", "http://public.test:8080/page")
        assert page == "there it is"


def test_streams_of_both_directions_pass_whole(out: Outlet, guest: Guest) -> None:
    out.serve("iperf3", "--server", "--forceflush", until="listening")
    for direction in ((), ("--reverse",)):
        words = ("--client", INTERNET, "--bytes", "50M", "--parallel", "2", "--json", *direction)
        told = json.loads(guest.run("iperf3", *words))["end"]
        assert told["sum_received"]["bytes"] >= 40_000_000  # it stops when all is sent


def test_datagrams_come_back_over_both_families(out: Outlet, guest: Guest, echo: Service) -> None:
    assert send(guest, "hello") == "hello"
    seen = echo.line().split()
    assert seen[0] == HOST
    six = out.echo(INTERNET6)
    assert send(guest, "hello", target=INTERNET6) == "hello"
    assert six.line().split()[0] == HOST6


def private_places(out: Outlet) -> list[str]:
    """Of the operator's network, of the mesh, of the exit itself, of the cloud."""
    own = out.on_machine("sh", "-c", "ip -o -4 addr show | grep vsx").split()[3].partition("/")[0]
    mesh = out.mesh.spaces.address("x")
    return [PRIVATE, own, mesh, "169.254.169.254", "127.0.0.1", "::ffff:10.1.1.1", "fd00::1"]


def test_what_is_not_public_is_refused_at_once_and_counted(out: Outlet, guest: Guest) -> None:
    for place in private_places(out):
        if place != "127.0.0.1":  # the guest's own
            assert connect(guest, place, 80) != "open", place
    counted = out.stats().clients[0]
    assert guest.until("status")
    while counted.blocked.get("private", 0) < 4:
        guest.until("status")
        counted = out.stats().clients[0]


@pytest.mark.parametrize("target", [HOST, HOST6])
def test_what_listens_on_the_machine_itself_is_out_of_reach(
    out: Outlet, guest: Guest, target: str
) -> None:
    service = out.run_on_machine("python3", "-c", LISTEN)
    assert service.line() == "ready\n"
    assert connect(guest, target, 9000) != "open"
    assert "open" in out.on_machine("python3", "-c", CONNECT, target, "9000")  # and it is there
    service.process.kill()


def test_mail_is_refused(out: Outlet, guest: Guest) -> None:
    for port in (25, 465, 587):
        assert connect(guest, INTERNET, port) != "open"
    while out.stats().clients[0].blocked.get("mail", 0) < 3:
        guest.until("status")


def test_a_packet_with_a_foreign_source_goes_nowhere(
    out: Outlet, guest: Guest, echo: Service
) -> None:
    lease = guest.lease
    assert lease is not None
    foreign = str(lease.address4 + 1)
    for address in (foreign, "51.1.1.77"):
        guest.run("ip", "addr", "add", f"{address}/32", "dev", "vt0")
        throw(guest, f"from {address}", address)
    assert send(guest, "rightful") == "rightful"
    assert echo.line().split()[2] == "rightful"  # which came after them
    client = out.stats().clients[0]
    assert client.dropped["foreign_source"] >= 2


def test_random_bytes_as_packets_are_dropped_and_the_tunnel_goes_on(
    out: Outlet, guest: Guest, echo: Service
) -> None:
    garble = """
import os, random, socket
chance = random.Random(7)
sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
for _ in range(3000):
    size = chance.randrange(1, 1500)
    data = bytearray(chance.randbytes(size))
    if chance.random() < 0.7:
        data[0] = chance.choice((0x45, 0x46, 0x4f, 0x60))
    sock.sendto(bytes(data), ("vt0", 0x86dd if data[0] >> 4 == 6 else 0x0800))
"""
    guest.python(garble)
    assert send(guest, "still") == "still"
    assert echo.line().split()[2] == "still"


def test_guests_do_not_reach_each_other(out: Outlet, guest: Guest) -> None:
    other = out.guest("b")
    try:
        assert other.lease is not None
        for address in (other.lease.address4, other.lease.address6):
            said = connect(guest, str(address), 80).split()[0]
            assert said in {"OSError", "PermissionError"}  # not that of the other: refused
        while not [c for c in out.stats().clients if c.blocked.get("clients", 0) >= 2]:
            guest.until("status")
    finally:
        other.end()


def test_the_port_of_one_guest_tells_nothing_about_that_of_another(
    out: Outlet, guest: Guest, echo: Service
) -> None:
    """Guests share the exit's address: none may take, foresee or listen at another's port."""
    other = out.guest("b")
    try:
        for each, text in ((guest, "mine"), (other, "theirs")):
            assert send(each, text, sport=40000) == text
        ports = [int(echo.line().split()[1]) for _ in range(2)]
        assert ports[0] != ports[1]
        assert 40000 not in ports
    finally:
        other.end()


def test_only_who_was_asked_may_answer(out: Outlet, guest: Guest, echo: Service) -> None:
    """A stranger who knows the port by which a guest leaves does not get in by it."""
    waiting = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
sock.connect  # is not called: all that comes is wanted
sock.bind(("", 0))
sock.sendto(b"first", (sys.argv[1], 7000))
sock.recvfrom(100)
sock.sendto(b"port?", (sys.argv[1], 7000))
print(sock.recvfrom(100)[0].decode(), flush=True)
sock.sendto(f"to {sys.argv[2]} {sys.stdin.readline().strip()} intruder".encode(), (sys.argv[1], 7000))
sock.sendto(b"last", (sys.argv[1], 7000))
print(sock.recvfrom(100)[0].decode(), flush=True)
"""
    process = out.spawn_in(guest.space, "python3", "-c", waiting, INTERNET, HOST)
    port = echo.line().split()[1]
    assert process.line() == "port?\n"
    process.say(f"{port}\n")
    assert process.line() == "last\n"
    assert [echo.line().split()[2] for _ in range(3)] == ["port?", "to", "last"]


def test_the_machine_forwards_for_nobody_who_is_not_in_the_tunnel(
    out: Outlet, guest: Guest, echo: Service
) -> None:
    """It forwards since the exit is there; a neighbour by cable gets nothing of that."""
    ways = (
        "ip",
        "route",
        "replace",
        INTERNET,
        "via",
        out.mesh.spaces.address("x"),
        "dev",
        "tox",
        "onlink",
    )
    guest.run(*ways)
    try:
        throw(guest, "around", out.mesh.spaces.address("a"))
    finally:
        guest.run("ip", "route", "del", INTERNET)
    assert send(guest, "through") == "through"
    assert echo.line().split()[2] == "through"


@pytest.mark.parametrize("greeting", [b"", b"\xc1", b"\x81\xa7version\x02", b"\xff" * 4000])
def test_what_is_no_request_is_refused(out: Outlet, greeting: bytes) -> None:
    said = out.guest("b", greeting)
    assert said.heard[0]["refused"] == 1
    assert said.heard[0]["reason"]
