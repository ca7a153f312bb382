"""A mesh whose nodes live in network namespaces, so that single links can be cut, broken and mended.

Each node has an address of its own, on `lo`; neighbours are joined by a veth pair, and a bridge leads
every node to the broker and the manager, which run outside. So a link may vanish and the bus stays.
Needs root and iproute2.
"""

import contextlib
import ctypes
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bus import Address, keystore
from bus.access import AccessList
from bus.settings import BrokerSettings, save
from tests.support.mesh import Mesh
from tests.support.stack import free_port

CLONE_NEWNET = 0x40000000
_NOWHERE = "02:00:00:00:00:01"
_serial = itertools.count()


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def socket_in(namespace: str, family: int = socket.AF_INET) -> socket.socket:
    """A TCP socket that lives in a namespace; whoever holds it may stay outside."""
    made: list[socket.socket] = []

    def enter() -> None:
        with Path("/run/netns", namespace).open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {namespace}")
        made.append(socket.socket(family, socket.SOCK_STREAM))

    thread = threading.Thread(target=enter)  # a thread may change its namespace, and end in it
    thread.start()
    thread.join()
    return made[0]


class Namespaces:
    """Namespaces for nodes of these names; named after this process, so that two runs do not meet."""

    def __init__(self, names: Iterable[str]) -> None:
        self.tag = f"vm{os.getpid() % 100_000}x{next(_serial)}"
        third = os.getpid() % 250
        self.outside = f"10.77.{third}.1"  # where the broker listens
        self._bridge = self.tag
        self._numbers = {name: number for number, name in enumerate(names, 10)}
        ip("link", "add", self._bridge, "type", "bridge")
        try:
            ip("addr", "add", f"{self.outside}/24", "dev", self._bridge)
            ip("link", "set", self._bridge, "up")
            for name, number in self._numbers.items():
                self._add(name, f"10.77.{third}.{number}")
        except BaseException:
            self.close()
            raise

    def of(self, name: str) -> str:
        return f"{self.tag}{name}"

    def address(self, name: str) -> str:
        """Where the neighbours of a node find it."""
        return f"10.78.0.{self._numbers[name]}"

    def join(self, name: str, other: str) -> None:
        """Lay a cable between two nodes."""
        ip("link", "add", f"to{other}", "netns", self.of(name), "type", "veth",
           "peer", "name", f"to{name}", "netns", self.of(other))  # fmt: skip
        for near, far in ((name, other), (other, name)):
            ip("-n", self.of(near), "link", "set", f"to{far}", "up")
            self.route(near, far, f"to{far}")

    def up(self, name: str, device: str) -> None:
        ip("-n", self.of(name), "link", "set", device, "up")

    def route(self, near: str, far: str, device: str) -> None:
        """What `near` sends to `far` goes through this device."""
        source = ("src", self.address(near))
        ip("-n", self.of(near), "route", "replace", self.address(far), "dev", device, *source)

    def cut(self, name: str, other: str) -> None:
        """What these two send to each other vanishes; nobody is told."""
        for near, far in ((name, other), (other, name)):
            ip("-n", self.of(near), "neigh", "replace", self.address(far), "lladdr", _NOWHERE,
               "dev", f"to{far}", "nud", "permanent")  # fmt: skip

    def mend(self, name: str, other: str) -> None:
        for near, far in ((name, other), (other, name)):
            ip("-n", self.of(near), "neigh", "del", self.address(far), "dev", f"to{far}")

    def close(self) -> None:
        for name in self._numbers:
            subprocess.run(["ip", "netns", "del", self.of(name)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, check=False)

    def _add(self, name: str, outside: str) -> None:
        namespace, device = self.of(name), f"{self.tag}{name}"
        ip("netns", "add", namespace)
        ip("link", "add", device, "type", "veth", "peer", "name", "out", "netns", namespace)
        ip("link", "set", device, "master", self._bridge, "up")
        ip("-n", namespace, "addr", "add", f"{outside}/24", "dev", "out")
        ip("-n", namespace, "addr", "add", f"{self.address(name)}/32", "dev", "lo")
        for own in ("lo", "out"):
            ip("-n", namespace, "link", "set", own, "up")


class SpreadMesh(Mesh):
    """A mesh whose nodes run in `spaces`; broker and manager run outside."""

    def __init__(self, folder: Path, spaces: Namespaces) -> None:
        super().__init__(folder)
        self.spaces = spaces
        self._inside: dict[str, str] = {}  # programs, and in whose namespace they run

    def start_broker(self, names: Sequence[str]) -> None:
        self._key("manager", "manager")
        for name in names:
            self._key(name, "node")
        broker = keystore.create(self.folder / "broker.key")
        keystore.save_access(self.folder / "access.json", AccessList(self._entries))
        endpoint = f"tcp://{self.spaces.outside}:{free_port()}"
        settings = BrokerSettings(endpoint, "broker.key", "access.json")
        save(self.folder / "broker.json", settings)
        found = msgspec.json.decode((self.folder / "broker.json").read_bytes())
        self.address = Address(found["endpoint"], broker.public)
        self.run_broker()

    def start_node(self, name: str, *links: str, options: Sequence[str] = ()) -> None:
        self._inside[name] = name
        where = ("--listen", f"tcp://{self.spaces.address(name)}:0")
        super().start_node(name, *links, options=(*where, *options))

    def start_beside(self, node: str, name: str, arguments: list[str], key: str = "") -> None:
        """Start an app in the namespace of a node, with the key of `key`, else its own."""
        self._inside[name] = node
        self._spawn(name, arguments, self._environment(key or name))

    def _spawn(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        before = (
            ["ip", "netns", "exec", self.spaces.of(self._inside[name])]
            if name in self._inside
            else []
        )  # which becomes the node: it has the same process id
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*before, sys.executable, "-P", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@contextlib.contextmanager
def spread_mesh(
    nodes: Mapping[str, Sequence[str]],
) -> Iterator[SpreadMesh]:
    """Run a mesh: name (one or two letters) -> the nodes it dials, by cables of their own."""
    spaces = Namespaces(nodes)
    try:
        for name, links in nodes.items():
            for other in links:
                spaces.join(name, other)
        with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
            mesh = SpreadMesh(Path(folder), spaces)
            try:
                mesh.start_broker([*nodes])
                mesh.start_manager()
                for name, links in nodes.items():
                    mesh.start_node(name, *links)
                yield mesh
            finally:
                mesh.stop()
    finally:
        spaces.close()
