"""Both halves of the VPN: a machine behind the client leaves at the exit, with names resolved there."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.vpn_exit import EVERYBODY, HOST, INTERNET, PATIENCE, Outlet, outlet, run_in


@pytest.fixture
def out() -> Iterator[Outlet]:
    with outlet(("a",)) as made:
        made.serve_names()
        made.start_exit(*EVERYBODY)
        yield made


@pytest.fixture
def machine(out: Outlet) -> Iterator[str]:
    """The namespace of a machine whose way out and resolver are somebody else's."""
    space = out.mesh.spaces.of("a")
    etc = Path("/etc/netns", space)
    etc.mkdir(parents=True)
    (etc / "resolv.conf").write_text("nameserver 8.8.8.8\n")
    run_in(space, "ip", "route", "add", "default", "dev", "tox")
    yield space
    shutil.rmtree(etc)


def test_a_machine_behind_the_client_leaves_at_the_exit(out: Outlet, machine: str) -> None:
    words = ("-u", "-m", "http.server", "8080", "--bind", INTERNET)
    web = out.serve("sh", "-c", 'exec "$@" 2>&1', "sh", "python3", *words, until="Serving")
    command = ["-m", "apps.vpn.client", "--node", "a", out.mesh.key("x")]
    out.mesh.start_beside("a", "client", command, "operator")
    deadline = time.monotonic() + PATIENCE
    while "connected to the exit" not in out.mesh.log("client"):
        assert time.monotonic() < deadline, out.mesh.log("client")
        time.sleep(0.05)
    page = run_in(machine, "curl", "-sS", "-m", "30", "http://public.test:8080/")
    assert "Directory listing" in page
    assert web.line().startswith(f"{HOST} ")
    [client] = out.stats().clients
    assert client.key == out.mesh.key("a")
