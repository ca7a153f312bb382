"""The VPN client on a machine of its own: what it changes, and that all is put back."""

import pytest

from tests.support.vpn import ExitStub, Veiled, exits, veiled


@pytest.fixture(scope="module")
def machine():
    with veiled() as found:
        yield found


async def test_a_lease_leads_everything_into_the_tunnel_and_off_puts_all_back(
    machine: Veiled,
) -> None:
    before = machine.state()
    stub = ExitStub()
    async with exits((stub, machine.mesh.socket("e"))):
        client = machine.start_client(machine.mesh.key("e"))
        told = await machine.until("connected")
        assert told["addresses"] == ["10.66.0.2", "fd66::2"]
        assert "dev viscript0" in machine.run("ip", "route", "get", "8.8.8.8")
        assert "dev viscript0" in machine.run("ip", "-6", "route", "get", "2001:db8::1")
        assert "dev toe" in machine.run("ip", "route", "get", "8.8.8.8", "uid", "60917")
        assert "nameserver 10.66.0.1\nsearch example.org\n" in machine.run(
            "cat", "/etc/resolv.conf"
        )
        assert machine.mend("look")["on"]
        client.terminate()
        client.wait(20)
        look = machine.mend("look", code=None)
        assert look["on"]
        assert "policy drop" in machine.run("nft", "list", "ruleset")
        machine.mend("off")
    assert machine.state() == before
