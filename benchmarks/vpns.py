"""VPNs between two namespaces: ours, and Debian's wireguard-go, yggdrasil, openvpn, tinc and nebula.

All run at once and idle while another is measured; each has a device of its own.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tunnels import cpu_seconds
from tests.support.mesh import Mesh
from tests.support.namespaces import Namespaces, SpreadMesh, ip
from tests.support.tun import tunnel

OURS = "ours"
WIREGUARD, YGGDRASIL, OPENVPN, TINC, NEBULA = (
    "wireguard-go",
    "yggdrasil",
    "openvpn",
    "tinc",
    "nebula",
)
PATIENCE = 30.0
NEAR, FAR = "10.9.0.1", "10.9.0.2"


@dataclass
class Vpn:
    """One that runs. `near` and `far` are the addresses inside of it."""

    name: str
    near: str
    far: str
    pids: Callable[[], list[int]]


class Place:
    """Two namespaces, a folder, and the processes that were started there."""

    def __init__(self, spaces: Namespaces, folder: Path) -> None:
        self.spaces, self.folder = spaces, folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, node: str, *command: str) -> subprocess.Popen[bytes]:
        name = Path(command[0]).name
        with (self.folder / f"{name}-{node}.log").open("wb") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.spaces.of(node), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self._started.append(process)
        return process

    def run(self, node: str, *command: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.spaces.of(node), *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def end(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _output(*command: str, stdin: str = "") -> str:
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=True
    ).stdout.strip()


def wireguard(place: Place) -> Vpn:
    keys = {node: _output("wg", "genkey") for node in "ab"}
    addresses = {"a": "10.11.0.1", "b": "10.11.0.2"}
    processes = []
    for node, other in (("a", "b"), ("b", "a")):
        device = f"wg{place.spaces.tag}{node}"[:15]
        processes.append(place.start(node, "wireguard-go", "-f", device))
        _until(lambda device=device: Path(f"/run/wireguard/{device}.sock").exists())  # type: ignore[misc]
        secret = place.folder / f"wg-{node}.key"
        secret.write_text(keys[node])
        public = _output("wg", "pubkey", stdin=keys[other])
        endpoint = f"{place.spaces.address(other)}:51820"
        place.run(node, "wg", "set", device, "listen-port", "51820", "private-key", str(secret),
                  "peer", public, "allowed-ips", "10.11.0.0/24", "endpoint", endpoint)  # fmt: skip
        _address(place, node, device, f"{addresses[node]}/24", 1420)
    return Vpn(WIREGUARD, addresses["a"], addresses["b"], lambda: _pids(processes))


def yggdrasil(place: Place) -> Vpn:
    found, processes = {}, []
    for node, other in (("b", "a"), ("a", "b")):
        config = json.loads(_output("yggdrasil", "-genconf", "-json"))
        there = f"tcp://{place.spaces.address(other)}:51830"
        config.update(
            Listen=[f"tcp://{place.spaces.address(node)}:51830"] if node == "b" else [],
            Peers=[there] if node == "a" else [],
            MulticastInterfaces=[],
            AdminListen="none",
            IfName="ygg0",
        )
        path = place.folder / f"yggdrasil-{node}.json"
        path.write_text(json.dumps(config))
        found[node] = _output("yggdrasil", "-useconffile", str(path), "-address")
        processes.append(place.start(node, "yggdrasil", "-useconffile", str(path)))
    return Vpn(YGGDRASIL, found["a"], found["b"], lambda: _pids(processes))


def openvpn(place: Place) -> Vpn:
    prints, processes = {}, []
    for node in "ab":
        where = [
            "-keyout",
            f"{place.folder}/ovpn-{node}.key",
            "-out",
            f"{place.folder}/ovpn-{node}.crt",
        ]
        _output("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-days", "2", "-subj", f"/CN={node}", *where)  # fmt: skip
        text = _output("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", where[3])
        prints[node] = text.partition("=")[2]
    addresses = {"a": "10.12.0.1", "b": "10.12.0.2"}
    spaces, folder = place.spaces, place.folder
    for node, other in (("a", "b"), ("b", "a")):
        role = ["--tls-client"] if node == "a" else ["--tls-server", "--dh", "none"]
        options = ["--local", spaces.address(node), "--remote", spaces.address(other), "--proto", "udp",
                   "--ifconfig", addresses[node], addresses[other], "--dev", "ovpn0", "--dev-type", "tun",
                   "--cert", f"{folder}/ovpn-{node}.crt", "--key", f"{folder}/ovpn-{node}.key",
                   "--peer-fingerprint", prints[other], "--data-ciphers", "AES-256-GCM",
                   "--keepalive", "5", "60", "--verb", "1"]  # fmt: skip
        processes.append(place.start(node, "openvpn", *options, *role))
    return Vpn(OPENVPN, addresses["a"], addresses["b"], lambda: _pids(processes))


def tinc(place: Place) -> Vpn:
    addresses = {"a": "10.13.0.1", "b": "10.13.0.2"}
    for node in "ab":
        folder = place.folder / f"tinc-{node}"
        (folder / "hosts").mkdir(parents=True)
        dial = "ConnectTo = b\n" if node == "a" else ""
        (folder / "tinc.conf").write_text(f"Name = {node}\nInterface = tinc0\n{dial}")
        (folder / "hosts" / node).write_text(
            f"Address = {place.spaces.address(node)}\nSubnet = {addresses[node]}/32\n"
        )
        script = folder / "tinc-up"
        script.write_text(
            f"#!/bin/sh\nip addr add {addresses[node]}/24 dev tinc0\nip link set tinc0 up\n"
        )
        script.chmod(0o755)
        _output("tincd", "-c", str(folder), "-K2048", stdin="\n\n")
    processes = []
    for node, other in (("b", "a"), ("a", "b")):
        known = (place.folder / f"tinc-{other}" / "hosts" / other).read_text()
        (place.folder / f"tinc-{node}" / "hosts" / other).write_text(known)
        pid = f"--pidfile={place.folder}/tinc-{node}.pid"
        processes.append(place.start(node, "tincd", "-c", f"{place.folder}/tinc-{node}", "-D", pid))
    return Vpn(TINC, addresses["a"], addresses["b"], lambda: _pids(processes))


def nebula(place: Place) -> Vpn:
    def make(*words: str) -> None:
        subprocess.run(["nebula-cert", *words], check=True, cwd=place.folder, capture_output=True)

    addresses = {"a": "10.14.0.1", "b": "10.14.0.2"}
    make("ca", "-name", "bench")
    processes = []
    for node, other in (("b", "a"), ("a", "b")):
        make("sign", "-name", node, "-ip", f"{addresses[node]}/24")
        anything = [{"port": "any", "proto": "any", "host": "any"}]
        config = {
            "pki": {
                "ca": f"{place.folder}/ca.crt",
                "cert": f"{place.folder}/{node}.crt",
                "key": f"{place.folder}/{node}.key",
            },
            "static_host_map": {addresses[other]: [f"{place.spaces.address(other)}:4242"]},
            "lighthouse": {"am_lighthouse": False},
            "listen": {"host": place.spaces.address(node), "port": 4242},
            "tun": {"dev": "neb0", "mtu": 1300},
            "cipher": "aes",
            "firewall": {"outbound": anything, "inbound": anything},
        }
        path = place.folder / f"nebula-{node}.yaml"
        path.write_text(json.dumps(config))  # which is YAML too
        processes.append(place.start(node, "nebula", "-config", str(path)))
    return Vpn(NEBULA, addresses["a"], addresses["b"], lambda: _pids(processes))


PEERS: dict[str, Callable[[Place], Vpn]] = {
    WIREGUARD: wireguard,
    YGGDRASIL: yggdrasil,
    OPENVPN: openvpn,
    TINC: tinc,
    NEBULA: nebula,
}


@contextlib.contextmanager
def peers(mesh: SpreadMesh, names: Iterable[str]) -> Iterator[dict[str, Vpn]]:
    """The others, up and answering, in the namespaces of a mesh."""
    folder = mesh.folder / "vpns"
    folder.mkdir()
    place = Place(mesh.spaces, folder)
    try:
        yield {name: PEERS[name](place) for name in names}
    finally:
        place.end()


@contextlib.asynccontextmanager
async def ours(mesh: SpreadMesh, between: Iterable[str] = ()) -> AsyncIterator[Vpn]:
    """A tunnel of nodes a and b; CPU time counts for them and for those `between`."""
    async with tunnel(mesh, "a", f"{NEAR}/24") as near, tunnel(mesh, "b", f"{FAR}/24") as far:
        await near.set_peer(mesh.key("b"), [f"{FAR}/32"])
        await far.set_peer(mesh.key("a"), [f"{NEAR}/32"])
        names = ["a", "b", *between]
        mesh_: Mesh = mesh
        yield Vpn(OURS, NEAR, FAR, lambda: [mesh_.processes[name].pid for name in names])


@dataclass(frozen=True)
class Run:
    """One iperf3: Mbit/s that arrived, CPU seconds of the VPN for each GB, loss in percent."""

    rate: float
    cpu: float
    loss: float = 0.0


def iperf(mesh: SpreadMesh, vpn: Vpn, *options: str, seconds: int) -> Run:
    """From a to b, through the VPN."""
    far, near = mesh.spaces.of("b"), mesh.spaces.of("a")
    server = subprocess.Popen(
        ["ip", "netns", "exec", far, "iperf3", "-s", "-1", "-B", vpn.far, "-J"],
        stdout=subprocess.DEVNULL,
    )
    try:
        _until(lambda: _listens(far))
        before = cpu_seconds(vpn.pids())
        command = ["ip", "netns", "exec", near, "iperf3", "-J", "-c", vpn.far, "-t", str(seconds)]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        used = cpu_seconds(vpn.pids()) - before
        found = json.loads(done.stdout)
        if "error" in found:
            raise RuntimeError(f"{vpn.name}: iperf3: {found['error']}")
        if "-u" in options:
            total = found["end"]["sum"]
            rate = total["bits_per_second"] / 1e6
            return Run(rate, used / total["bytes"] * 1e9, total["lost_percent"])
        total = found["end"]["sum_received"]
        return Run(total["bits_per_second"] / 1e6, used / total["bytes"] * 1e9)
    finally:
        server.terminate()
        server.wait()


def answers(mesh: SpreadMesh, vpn: Vpn) -> None:
    """Wait until a connection through the VPN comes about."""
    asking = "import socket,sys\ns=socket.create_connection((sys.argv[1],5201),2)\ns.close()"
    far, near = mesh.spaces.of("b"), mesh.spaces.of("a")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        server = subprocess.Popen(
            ["ip", "netns", "exec", far, "iperf3", "-s", "-B", vpn.far],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.3)
            asked = subprocess.run(
                ["ip", "netns", "exec", near, sys.executable, "-c", asking, vpn.far],
                capture_output=True,
                check=False,
            )
            if not asked.returncode:
                return
        finally:
            server.terminate()
            server.wait()
    raise RuntimeError(f"{vpn.name} did not come up within {PATIENCE:g} s")


def _listens(namespace: str) -> bool:
    shown = subprocess.run(
        ["ip", "netns", "exec", namespace, "cat", "/proc/net/tcp", "/proc/net/tcp6"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return any(":1451 " in line and " 0A " in line for line in shown.splitlines())  # port 5201


def _address(place: Place, node: str, device: str, address: str, mtu: int) -> None:
    space = place.spaces.of(node)
    ip("-n", space, "addr", "add", address, "dev", device)
    ip("-n", space, "link", "set", device, "mtu", str(mtu), "up")


def _pids(processes: Iterable[subprocess.Popen[bytes]]) -> list[int]:
    for process in processes:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return [process.pid for process in processes]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a VPN does not come up")
        time.sleep(0.02)
