"""An exit comes, is killed, goes: what is limited while it is there, and what is left of it afterwards."""

import json
import time
from collections.abc import Iterator

import pytest

from apps.vpn.messages import Why
from tests.support.vpn_exit import EVERYBODY, INTERNET, PATIENCE, Outlet, outlet

SENT = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
for _ in range(40):
    sock.sendto(b"there?", (sys.argv[1], 7000))
    try:
        print(sock.recvfrom(100)[0].decode())
        break
    except OSError:
        pass
"""
MANY = """
import socket, sys
held, refused = [], 0
for _ in range(40):
    try:
        held.append(socket.create_connection((sys.argv[1], 8080), timeout=20))
    except OSError:
        refused += 1
print(len(held), refused)
"""


@pytest.fixture(scope="module")
def out() -> Iterator[Outlet]:
    with outlet() as made:
        made.echo()
        made.serve("python3", "-u", "-m", "http.server", "8080", until="Serving")
        yield made


@pytest.fixture
def before(out: Outlet) -> dict[str, list[str]]:
    return out.state()


@pytest.fixture(autouse=True)
def _nothing_left(out: Outlet) -> Iterator[None]:
    yield
    out.clear()


def kill(out: Outlet) -> None:
    """As kill -9 does; waits until the kernel has taken the namespace away."""
    out.mesh.kill("vpn")
    out.put_log_away()
    deadline = time.monotonic() + PATIENCE
    while "vsx" in out.on_machine("ip", "-o", "link"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_all_is_put_back_exactly_when_it_is_stopped(
    out: Outlet, before: dict[str, list[str]]
) -> None:
    out.start_exit(*EVERYBODY)
    guest = out.guest("a")
    assert "there?" in guest.python(SENT, INTERNET)
    assert out.state() != before
    assert out.stop_exit() == 0
    assert guest.until("over")["code"] == Why.STOPPING
    guest.end()
    assert out.state() == before


def test_what_a_killed_one_leaves_opens_nothing_and_is_put_back(
    out: Outlet, before: dict[str, list[str]]
) -> None:
    out.start_exit(*EVERYBODY)
    guest = out.guest("a")
    kill(out)
    assert guest.until("end")
    guest.end()
    left = out.state()
    assert left["links"] == before["links"]
    assert left["settings"] != before["settings"]
    told = out.on_machine(*out.vpn_server, "--put-back")
    assert told.startswith("put back")
    assert out.state() == before
    assert out.on_machine(*out.vpn_server, "--put-back") == ""


def test_one_that_was_killed_goes_on_where_it_was_and_a_guest_has_its_addresses_again(
    out: Outlet, before: dict[str, list[str]]
) -> None:
    out.start_exit(*EVERYBODY)
    first = out.guest("a")
    kill(out)
    first.end()
    out.start_exit(*EVERYBODY)
    second = out.guest("a")
    assert second.lease == first.lease
    assert "there?" in second.python(SENT, INTERNET)
    second.end()
    assert out.stop_exit() == 0
    assert out.state() == before


def test_the_node_is_killed_and_guests_come_again_when_it_is_back(out: Outlet) -> None:
    out.start_exit(*EVERYBODY)
    guest = out.guest("a")
    out.mesh.kill("x")
    assert guest.until("end")
    guest.end()
    out.mesh.start_node("x")
    out.until_logged("clients leave here", times=2)
    out.linked()
    again = out.guest("a")
    assert again.lease == guest.lease
    assert "there?" in again.python(SENT, INTERNET)
    again.end()
    out.stop_exit()


def test_a_firewall_that_is_loaded_anew_does_not_take_the_exit_with_it(
    out: Outlet, before: dict[str, list[str]]
) -> None:
    out.start_exit(*EVERYBODY)
    guest = out.guest("a")
    out.on_machine("nft", "flush", "ruleset")
    out.until_logged("were gone and are there again")
    assert "there?" in guest.python(SENT, INTERNET)
    guest.end()
    out.stop_exit()
    assert out.state() == before


def test_a_firewall_that_drops_what_it_does_not_know_is_told_of(out: Outlet) -> None:
    policy = "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
    out.on_machine("nft", f"add table ip filter; {policy}")
    try:
        out.start_exit(*EVERYBODY)
        assert "ip filter FORWARD" in out.stats().warnings[0]
        assert "ip filter FORWARD" in out.mesh.log("vpn")
    finally:
        out.on_machine("nft", "delete table ip filter")
    out.stop_exit()


def test_the_same_exit_a_second_time_is_refused_and_harms_nothing(out: Outlet) -> None:
    out.start_exit(*EVERYBODY)
    guest = out.guest("a")
    out.mesh.start_beside("x", "second", [*out.vpn_server[2:], "--node", "x", *EVERYBODY], "vpn")
    out.until_logged("port 4", name="second")
    assert "there?" in guest.python(SENT, INTERNET)
    guest.end()
    out.mesh.kill("second")
    out.stop_exit()


def test_only_nodes_whose_keys_are_allowed_get_a_lease(out: Outlet) -> None:
    out.start_exit("--allow-key", out.mesh.key("b"))
    stranger, friend = out.guest("a"), out.guest("b")
    assert "failed" in stranger.heard[0] or "refused" in stranger.heard[0]
    assert friend.lease is not None
    friend.end()
    out.stop_exit()


def test_guests_reach_each_other_where_the_operator_lets_them(out: Outlet) -> None:
    out.start_exit(*EVERYBODY, "--between")
    first, second = out.guest("a"), out.guest("b")
    assert second.lease is not None
    for version, address in (("-4", second.lease.address4), ("-6", second.lease.address6)):
        first.run("ping", version, "-c", "3", "-i", "0.2", "-W", "20", str(address))
    first.end()
    second.end()
    out.stop_exit()


def test_a_guest_has_so_many_connections_and_no_more(out: Outlet) -> None:
    out.start_exit(*EVERYBODY, "--connections", "30")
    guest, other = out.guest("a"), out.guest("b")
    assert guest.python(MANY, INTERNET).split() == ["30", "10"]
    assert other.python(MANY, INTERNET).split() == ["30", "10"]  # has its own
    guest.end()
    other.end()
    out.stop_exit()


def test_a_guest_is_held_to_its_rate_in_each_direction(out: Outlet) -> None:
    out.serve("iperf3", "--server", "--one-off", "--forceflush", until="listening")
    out.start_exit(*EVERYBODY, "--rate", "2M")
    guest = out.guest("a")
    words = ("--client", INTERNET, "--time", "5", "--json")
    told = json.loads(guest.run("iperf3", *words))["end"]
    assert told["sum_received"]["bits_per_second"] < 2 * 8e6 * 1.3
    out.serve("iperf3", "--server", "--one-off", "--forceflush", until="listening")
    told = json.loads(guest.run("iperf3", *words, "--reverse"))["end"]
    assert told["sum_received"]["bits_per_second"] < 2 * 8e6 * 1.3
    while "rate" not in out.stats().clients[0].blocked:
        guest.until("status")
    guest.end()
    out.stop_exit()


def test_a_guest_whose_volume_is_used_up_is_sent_away_and_stays_away(out: Outlet) -> None:
    book = out.mesh.folder / "leases.json"
    book.unlink(missing_ok=True)  # what the guests of other tests have moved counts, too
    out.start_exit(*EVERYBODY, "--volume", "3M")
    out.serve("iperf3", "--server", "--forceflush", until="listening")
    guest = out.guest("a")
    guest.run("iperf3", "--client", INTERNET, "--bytes", "40M", code=None)
    assert guest.until("over")["code"] == Why.VOLUME
    guest.end()
    assert out.guest("a").heard[0]["refused"] == Why.VOLUME
    out.stop_exit()
    book.unlink()


def test_without_the_capability_it_says_what_it_lacks(out: Outlet) -> None:
    dropped = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    command = (*dropped, *out.vpn_server, "--node", "x", *EVERYBODY)
    said = out.on_machine(*command, code=8)
    assert said == "error: vpn-server lacks CAP_NET_ADMIN: run viscript as root\n"


def test_without_nft_it_says_what_to_install(out: Outlet) -> None:
    hidden = 'mount -t tmpfs none /usr/sbin && exec "$@"'
    said = out.on_machine(
        "unshare", "--mount", "sh", "-c", hidden, "sh", *out.vpn_server, "--put-back", code=8
    )
    assert "apt-get install nftables" in said
