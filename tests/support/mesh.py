"""A broker, a node manager and nodes as real processes in a folder of their own."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bus import Address, Bus, connect, keystore
from bus.access import AccessList
from bus.settings import BrokerSettings, save
from bus.signals import AccessEntry
from nodes import api
from nodes.client import Node, Stream, connect_node
from tests.support.stack import free_port

PATIENCE = 15.0


class Mesh:
    """Starts and ends processes; `folder` is short enough for unix sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._entries: list[AccessEntry] = []
        self.operator = self._key("operator", "admin")
        self.address: Address

    def start_broker(self, names: Sequence[str], people: Mapping[str, str] | None = None) -> None:
        """Start the broker with keys for a manager, nodes of these names, and people by role."""
        self._key("manager", "manager")
        for name, role in (people or {}).items():
            self._key(name, role)
        for name in names:
            self._key(name, "node")
        broker = keystore.create(self.folder / "broker.key")
        keystore.save_access(self.folder / "access.json", AccessList(self._entries))
        save(
            self.folder / "broker.json",
            BrokerSettings(f"tcp://127.0.0.1:{free_port()}", "broker.key", "access.json"),
        )
        settings = msgspec.json.decode((self.folder / "broker.json").read_bytes())
        self.address = Address(settings["endpoint"], broker.public)
        self.run_broker()

    def run_broker(self) -> None:
        self._spawn("broker", ["-m", "bus.cli", "run", str(self.folder)], {})

    def start_manager(self) -> None:
        self._spawn("manager", ["-m", "nodes.manager.service"], self._environment("manager"))

    def start_node(self, name: str, *links: str, options: Sequence[str] = ()) -> None:
        arguments = [part for link in links for part in ("--link", link)]
        command = ["-m", "nodes.node", "--name", name, *arguments, *options]
        self._spawn(name, command, self._environment(name))

    def start_program(self, name: str, code: str, *options: str) -> None:
        """Start a node that is not as it should be: `code` changes it, and starts it."""
        self._spawn(name, ["-c", code, "--name", name, *options], self._environment(name))

    def spawn_again(self, name: str) -> subprocess.Popen[bytes]:
        """Start a second node of the same name and key."""
        first = self.processes[name]
        self.start_node(name)
        second = self.processes[name]
        self.processes[name] = first
        return second

    def socket(self, name: str) -> Path:
        return self.folder / f"node-{name}.sock"

    def key(self, name: str) -> str:
        return keystore.load(self.folder / f"{name}.key").public

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def kill(self, name: str) -> None:
        """End a process as `kill -9` does."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextlib.asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        async with connect(self.address, self.operator, name="operator", timeout=PATIENCE) as bus:
            yield bus

    async def status(self, name: str) -> api.Status:
        async with self.bus() as bus:
            body = await bus.request(api.STATUS, to=self.key(name), timeout=5)
            return api.unpack(body, api.Status)

    async def linked(self, *pairs: tuple[str, str]) -> None:
        """Wait until the sockets are there, and the manager knows of these links."""
        async with self.bus() as bus:
            deadline = time.monotonic() + PATIENCE
            missing = list(pairs)
            while missing and time.monotonic() < deadline:
                with contextlib.suppress(Exception):
                    nodes = api.unpack(await bus.request(api.NODES), api.Nodes).nodes
                    links = {node.key: set(node.links) for node in nodes}
                    missing = [
                        (a, b)
                        for a, b in pairs
                        if self.key(b) not in links.get(self.key(a), ())
                        or self.key(a) not in links.get(self.key(b), ())
                    ]
                await asyncio.sleep(0.05)
        if missing:
            logs = "\n".join(f"--- {name}\n{self.log(name)}" for name in self.processes)
            raise AssertionError(f"not linked: {missing}\n{logs}")

    async def unlinked(self, name: str, other: str) -> None:
        """Wait until the node `name` has given its link to `other` up."""
        async with asyncio.timeout(PATIENCE):
            while self.key(other) in (await self.status(name)).links:
                await asyncio.sleep(0.05)

    def _key(self, name: str, role: str) -> keystore.KeyPair:
        pair = keystore.create(self.folder / f"{name}.key")
        self._entries.append(AccessEntry(pair.public, name, [role]))
        return pair

    def _environment(self, name: str) -> dict[str, str]:
        return {
            "VISCRIPT_BROKER": self.address.endpoint,
            "VISCRIPT_BROKER_KEY": self.address.key,
            "VISCRIPT_KEY_FILE": str(self.folder / f"{name}.key"),
            "VISCRIPT_APP": name,
            "VISCRIPT_HOME": str(self.folder),
            "VISCRIPT_RUN": str(self.folder),
            "VISCRIPT_STATE": str(self.folder),
        }

    def _spawn(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-P", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@contextlib.contextmanager
def running_mesh(
    nodes: Mapping[str, Sequence[str]],
    *,
    spare: Sequence[str] = (),
    people: Mapping[str, str] | None = None,
) -> Iterator[Mesh]:
    """Run a broker, a manager and nodes: name -> the nodes it dials. `spare` get a key only.

    `people`, name -> role, do as well.
    """
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        mesh = Mesh(Path(folder))
        try:
            mesh.start_broker([*nodes, *spare], people)
            mesh.start_manager()
            for name, links in nodes.items():
                mesh.start_node(name, *links)
            yield mesh
        finally:
            mesh.stop()


@contextlib.contextmanager
def line_of_three() -> Iterator[Mesh]:
    """a - r - b, and no link between a and b."""
    with running_mesh({"r": [], "a": ["r"], "b": ["r"]}) as mesh:
        asyncio.run(mesh.linked(("a", "r"), ("b", "r")))
        yield mesh


_opened: list[Stream] = []  # to be closed when `ends` is left


@contextlib.asynccontextmanager
async def ends(
    mesh: Mesh, near: str = "a", far: str = "b", patience: float = 60.0
) -> AsyncIterator[tuple[Node, Node]]:
    """An app at each of two nodes, for so many s at most; streams of `pair` are closed at the end."""
    async with (
        asyncio.timeout(patience),
        connect_node(mesh.socket(near), "near") as node,
        connect_node(mesh.socket(far), "far") as other,
    ):
        try:
            yield node, other
        finally:
            while _opened:
                await _opened.pop().aclose()


def close_later(*streams: Stream) -> None:
    """Close them when `ends` is left."""
    _opened.extend(streams)


async def pair(near: Node, far: Node, port: int) -> tuple[Stream, Stream]:
    """Both ends of one stream, closed when `ends` is left."""
    opened = await both_ends(near, far, port)
    close_later(*opened)
    return opened


async def both_ends(near: Node, far: Node, port: int) -> tuple[Stream, Stream]:
    """Open a stream; give its ends at `near` and at `far`."""
    listener = await far.listen(port)

    async def accept() -> Stream:
        return await (await anext(listener)).accept()

    async with asyncio.TaskGroup() as tasks:
        accepted = tasks.create_task(accept())
        opened = tasks.create_task(near.open_stream(far.name, port))
    await listener.aclose()
    return opened.result(), accepted.result()
