"""An exit on a machine of its own, guests on others, and an internet that is a namespace.

`x` has the node of the exit, `a` and `b` those of guests. `x` reaches the internet by a cable of its own;
on it there are an HTTP server and iperf3 at `INTERNET`, a DNS server, and a machine of a private network.
Needs root, iproute2, nftables, iperf3 and curl.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from apps.vpn import messages
from apps.vpn.stats import Stats
from tests.support.namespaces import Namespaces, SpreadMesh, ip

PATIENCE = 40.0
INTERNET, INTERNET6 = "51.1.1.1", "2a01::1"
HOST, HOST6 = "51.1.1.2", "2a01::2"  # of the exit's machine
PRIVATE = "10.1.1.1"  # of the operator's own network
REQUEST = messages.encode(messages.Request(messages.VERSION))
EVERYBODY = ("--allow-key", "everybody")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@dataclass
class Guest:
    """A client with a lease, on the machine of a node."""

    space: str
    process: subprocess.Popen[str]
    heard: list[dict[str, object]] = field(default_factory=list)
    lease: messages.Lease | None = None

    def next(self) -> dict[str, object]:
        """What it says next; {} when it ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = dict(json.loads(line)) if line else {}
        self.heard.append(found)
        return found

    def until(self, kind: str) -> dict[str, object]:
        while True:
            found = self.next()
            if not found or found.get("type") == kind:
                return found

    def run(self, *words: str, code: int | None = 0, timeout: float = 60) -> str:
        """A command on its machine."""
        return run_in(self.space, *words, code=code, timeout=timeout)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)

    def python(self, text: str, *words: str, code: int | None = 0) -> str:
        """Python on its machine."""
        return self.run(sys.executable, "-P", "-c", text, *words, code=code)

    def resolve_by_exit(self) -> None:
        """Programs on its machine ask the exit's resolver from now on."""
        assert self.lease is not None
        folder = Path("/etc/netns", self.space)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"nameserver {address}\n" for address in self.lease.resolver]
        (folder / "resolv.conf").write_text("".join(lines))

    @property
    def address(self) -> str:
        assert self.lease is not None
        return str(self.lease.address4)

    @property
    def resolver(self) -> str:
        assert self.lease is not None
        return self.lease.resolver[0]


def run_in(space: str, *words: str, code: int | None = 0, timeout: float = 60) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", space, *words], capture_output=True, text=True, check=False,
        timeout=timeout,
    )  # fmt: skip
    assert code is None or done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


class Service:
    """A program that goes on while the test does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        """What it prints next; waits for it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()


class Outlet:
    """The exit and all around it."""

    vpn_server = (sys.executable, "-P", "-m", "apps.vpn.server")

    def __init__(self, mesh: SpreadMesh, internet: str, names: Sequence[str]) -> None:
        self.mesh = mesh
        self._names = names
        self.internet = internet
        self.space = mesh.spaces.of("x")
        self._guests: list[Guest] = []
        self._others: list[subprocess.Popen[str]] = []

    def start_exit(self, *options: str) -> None:
        """Start vpn-server, and wait until it lets clients out."""
        command = ["-m", "apps.vpn.server", "--node", "x", "--resolver", INTERNET, *options]
        self.mesh.start_beside("x", "vpn", command, "vpn")
        self.until_logged("clients leave here")

    def until_logged(self, text: str, times: int = 1, name: str = "vpn") -> None:
        deadline = time.monotonic() + PATIENCE
        while self.mesh.log(name).count(text) < times:
            assert self.mesh.processes[name].poll() is None, self.mesh.log(name)
            assert time.monotonic() < deadline, self.mesh.log(name)
            time.sleep(0.05)

    def linked(self) -> None:
        """Wait until the nodes of the guests have their links."""
        asyncio.run(self.mesh.linked(*((name, "x") for name in self._names)))

    def stop_exit(self) -> int:
        process = self.mesh.processes.pop("vpn")
        process.terminate()
        code = process.wait(20)
        self.put_log_away()
        return code

    def put_log_away(self) -> None:
        (self.mesh.folder / "vpn.log").rename(self.mesh.folder / f"vpn-{time.monotonic_ns()}.log")

    def clear(self) -> None:
        """End the exit and the guests that a test left running."""
        for guest in self._guests:
            if guest.process.poll() is None:
                guest.end()
        if "vpn" in self.mesh.processes:
            self.stop_exit()

    def guest(self, name: str, greeting: bytes = REQUEST, mode: str = "kind") -> Guest:
        """Ask for a lease from the node of this name."""
        command = [
            "ip", "netns", "exec", self.mesh.spaces.of(name), sys.executable, "-P", "-m",
            "tests.support.vpn_guest", str(self.mesh.socket(name)), self.mesh.key("x"),
            greeting.hex(), mode,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=ENVIRONMENT,
        )  # fmt: skip
        guest = Guest(self.mesh.spaces.of(name), process)
        self._guests.append(guest)
        first = guest.next()
        if "lease" in first:
            guest.lease = msgspec.convert(first["lease"], messages.Lease)
        return guest

    def on_machine(self, *words: str, code: int | None = 0) -> str:
        """A command on the exit's machine."""
        return run_in(self.space, *words, code=code)

    def serve(self, *words: str, until: str = "") -> Service:
        """A program on the internet; wait until it says so."""
        service = self.spawn_in(self.internet, *words)
        while until and until not in service.line():
            assert service.process.poll() is None, words
        return service

    def run_on_machine(self, *words: str) -> Service:
        """A program beside the exit."""
        return self.spawn_in(self.space, *words)

    def spawn_in(self, space: str, *words: str) -> Service:
        process = subprocess.Popen(
            ["ip", "netns", "exec", space, *words], text=True, env=ENVIRONMENT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._others.append(process)
        return Service(process)

    def echo(self, address: str = INTERNET, port: int = 7000) -> Service:
        """Answers datagrams and tells who sent them: `tests.support.internet`."""
        words = ("-m", "tests.support.internet", "echo", address, str(port))
        return self.serve(sys.executable, "-P", *words, until="ready")

    def serve_names(self) -> None:
        words = ("-m", "tests.support.internet", "names", INTERNET)
        self.serve(sys.executable, "-P", *words, until="ready")

    def stats(self) -> Stats:
        return asyncio.run(self._stats())

    async def _stats(self) -> Stats:
        async with self.mesh.bus() as bus:
            body = await bus.request("vpn.stats", to=self.mesh.key("vpn"), timeout=10)
            return msgspec.msgpack.decode(body, type=Stats)

    def settle(self) -> None:
        """Wait until the kernel is done with addresses of its own (RFC 4862, 5.4)."""
        deadline = time.monotonic() + PATIENCE
        while self.on_machine("ip", "-6", "addr", "show", "tentative"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def state(self) -> dict[str, list[str]]:
        """What an exit changes on its machine, as lines."""
        commands = {
            "links": "ip -o link",
            "addresses": "ip -o addr",
            "routes": "ip route show table all; ip -6 route show table all",
            "rules": "ip rule; ip -6 rule",
            "nft": "nft list ruleset",
            "settings": "sysctl -a -r 'forwarding|accept_ra$' 2>/dev/null",
        }
        found = {name: self.on_machine("sh", "-c", text) for name, text in commands.items()}
        return {name: sorted(text.splitlines()) for name, text in found.items()}

    def close(self) -> None:
        for process in (*(guest.process for guest in self._guests), *self._others):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        for guest in self._guests:
            shutil.rmtree(Path("/etc/netns", guest.space), ignore_errors=True)


@contextlib.contextmanager
def outlet(guests: Sequence[str] = ("a", "b")) -> Iterator[Outlet]:
    """All of it but the exit itself."""
    nodes: dict[str, list[str]] = {"x": [], **{name: ["x"] for name in guests}}
    spaces = Namespaces(nodes)
    internet = spaces.of("i")
    try:
        for name in guests:
            spaces.join(name, "x")
        _internet(spaces.of("x"), internet)
        with tempfile.TemporaryDirectory(prefix="exit-") as folder:
            mesh = SpreadMesh(Path(folder), spaces)
            mesh._key("vpn", "app")
            made = Outlet(mesh, internet, guests)
            try:
                mesh.start_broker([*nodes])
                mesh.start_manager()
                for name, others in nodes.items():
                    mesh.start_node(name, *others)
                made.linked()
                made.settle()
                yield made
            finally:
                made.close()
                mesh.stop()
    finally:
        subprocess.run(["ip", "netns", "del", internet], capture_output=True, check=False)
        spaces.close()


def _internet(machine: str, internet: str) -> None:
    ip("netns", "add", internet)
    ip(
        "link",
        "add",
        "inet",
        "netns",
        machine,
        "type",
        "veth",
        "peer",
        "name",
        "inet",
        "netns",
        internet,
    )
    for space, four, six in ((machine, HOST, HOST6), (internet, INTERNET, INTERNET6)):
        ip("-n", space, "link", "set", "inet", "up")
        ip("-n", space, "addr", "add", f"{four}/24", "dev", "inet")
        ip("-n", space, "addr", "add", f"{six}/64", "dev", "inet", "nodad")
    ip("-n", internet, "link", "set", "lo", "up")
    ip("-n", internet, "addr", "add", f"{PRIVATE}/24", "dev", "inet")
    ip("-n", machine, "addr", "add", "10.1.1.2/24", "dev", "inet")
    ip("-n", machine, "route", "add", "default", "via", INTERNET)
    ip("-n", machine, "-6", "route", "add", "default", "via", INTERNET6)
