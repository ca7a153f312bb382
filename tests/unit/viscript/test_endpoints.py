"""Where the broker of a home listens."""

from pathlib import Path

from viscript import endpoints
from viscript.home import Home


def test_a_chosen_port_is_none_that_an_outgoing_connection_may_get(tmp_path):
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for number in range(50):
        home = Home(tmp_path / str(number))
        home.root.mkdir()
        host, _, port = endpoints.choose(home, None, is_up=False).rpartition(":")
        assert host == "tcp://127.0.0.1"
        assert not first <= int(port) <= last or first <= endpoints.LOWEST
        assert endpoints.choose(home, None, is_up=True) == f"{host}:{port}"
