"""`viscript vpn` on a host that joined the cluster of another, at which the exit is.

The broker is on the other host: daemon and commands reach it while the VPN is on.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.inside import Inside
from tests.support.instance import until
from tests.support.namespaces import Namespaces

ENDPOINT_PORT = 7600
MANAGER = {"path": "python:nodes.manager.service", "autostart": True, "role": "manager"}
NODE = {"restart": "on-failure", "autostart": True, "role": "node", "path": "python:nodes.node"}


@dataclass
class Cluster:
    first: Inside
    host: Inside  # the one that joined


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """The VPN is off."""
    spaces = Namespaces(["c", "x"])
    spaces.join("c", "x")
    reached = spaces.address("x")
    etc = [Path("/etc/netns", spaces.of(name)) for name in ("c", "x")]
    for place in etc:  # else they would have the resolv.conf of the machine that tests run on
        place.mkdir(parents=True)
        (place / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    with tempfile.TemporaryDirectory(prefix="vpn-") as folder:
        first = Inside(Path(folder, "first"), spaces.of("x"))
        host = Inside(Path(folder, "host"), spaces.of("c"))
        try:
            first.configure(
                {
                    "node-manager": MANAGER,
                    "beta": NODE | {"default_args": ["--name", "beta", "--listen", f"tcp://{reached}:0"]},
                    "vpn-server": {"path": "python:apps.vpn.server", "default_args": ["--node", "beta"]},
                    "vpn-client": {"path": "python:apps.vpn.client", "default_args": ["--node", "beta"]},
                },
                broker={"endpoint": f"tcp://0.0.0.0:{ENDPOINT_PORT}"},
            )  # fmt: skip
            host.configure(
                {
                    "alpha": NODE | {"default_args": ["--name", "alpha", "--link", "beta"]},
                    "vpn-client": {"path": "python:apps.vpn.client", "default_args": ["--node", "alpha"],
                                   "restart": "on-failure"},
                }
            )  # fmt: skip
            first.run("up", "--detach")
            first.run("start", "vpn-server", "--allow-key", "everybody", "--resolver", "192.0.2.1")
            endpoint = f"{reached}:{ENDPOINT_PORT}"
            invited = first.ask("host", "invite", "--name", "laptop", "--endpoint", endpoint)
            host.run("join", input=invited["join"])
            yield Cluster(first, host)
        finally:
            for each in (first, host):
                each.run("vpn", "off", code=None)
            host.clean_up()
            first.clean_up()
            spaces.close()
            for each in etc:
                shutil.rmtree(each)


def test_a_host_that_joined_shows_and_ends_its_vpn(cluster: Cluster) -> None:
    host = cluster.host
    before = host.rules()
    assert "connected to beta" in host.run("vpn", "on", "beta", "--timeout", "50").stdout
    found = host.ask("vpn", "status")
    assert found["client"]["state"] == "connected"
    assert "BROKEN" not in host.run("vpn", "doctor").stdout
    assert "alpha" in host.run("la").stdout
    pid = next(each["pid"] for each in host.ask("la") if each["app"] == "vpn-client")
    os.kill(pid, signal.SIGKILL)
    until(lambda: _again(host, pid), 50)
    host.run("vpn", "off")
    assert host.rules() == before


def test_the_broker_of_a_host_behind_a_vpn_is_reached_by_the_others(cluster: Cluster) -> None:
    """Whether it has a tunnel or not."""
    first, host = cluster.first, cluster.host
    assert "nothing leaves" in first.run("vpn", "on", "alpha", "--timeout", "5", code=7).stderr
    assert "policy drop" in first.rules()
    assert {"alpha", "beta"} <= {each["app"] for each in host.ask("la")}
    first.run("vpn", "off")


def _again(host: Inside, pid: int) -> bool:
    """Whether the daemon has started the client again, and that has a tunnel."""
    found = [each["pid"] for each in host.ask("la") if each["app"] == "vpn-client"]
    return found != [pid] and host.ask("vpn", "status")["client"]["state"] == "connected"
