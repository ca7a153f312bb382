"""What the rows of the mesh share: bulk through a tunnel, and the tunnels: ours, and `ssh -L`."""

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ssh import ssh_between
from nodes.client import Node, connect_node
from tests.support.namespaces import SpreadMesh, socket_in

CHUNK = 1 << 20
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Carried:
    """One transfer: MB/s, and CPU seconds per GB of all tunnel processes."""

    rate: float
    cpu: float


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for at in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{at}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


class Sink:
    """A server in a namespace which counts what comes; bytes are thrown away unseen."""

    def __init__(self, namespace: str) -> None:
        self._server = socket_in(namespace)
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(256)
        self.port: int = self._server.getsockname()[1]

    def accept(self) -> socket.socket:
        return self._server.accept()[0]

    def close(self) -> None:
        self._server.close()


def drain(sock: socket.socket) -> int:
    """Read to the end; how much that was."""
    buffer, total = bytearray(CHUNK), 0
    while size := sock.recv_into(buffer, CHUNK, socket.MSG_TRUNC):
        total += size
    return total


def push(sock: socket.socket, size: int) -> None:
    """Send `size` zeros out of the page cache, as cheaply as can be, and finish."""
    file = os.memfd_create("zeros")
    try:
        os.write(file, bytes(8 * CHUNK))
        left = size
        while left:
            left -= os.sendfile(sock.fileno(), file, 0, min(left, 8 * CHUNK))
        sock.shutdown(socket.SHUT_WR)
    finally:
        os.close(file)


def carry(
    connect: Callable[[], socket.socket], sink: Sink, size: int, pids: Callable[[], list[int]]
) -> Carried:
    """Send `size` bytes through a tunnel, from the first byte to the last that arrives."""
    near = connect()
    with near, sink.accept() as far:
        processes = pids()
        before, begun = cpu_seconds(processes), time.perf_counter()
        thread = threading.Thread(target=push, args=(near, size))
        thread.start()
        arrived = drain(far)
        seconds = time.perf_counter() - begun
        used = cpu_seconds(processes) - before
        thread.join()
    if arrived != size:
        raise RuntimeError(f"{arrived} of {size} bytes arrived")
    return Carried(size / seconds / 1e6, used / size * 1e9)


class Forward:
    """Local connections at one node that end at a sink beside another, as the app `forward` does it.

    Both descriptors are handed to the nodes, so this process carries no byte.
    """

    PORT = 4000

    def __init__(self, mesh: SpreadMesh, near: str, far: str, nodes: dict[str, Node]) -> None:
        self.mesh, self.near, self.far = mesh, near, far
        self.sink = Sink(mesh.spaces.of(far))
        self._nodes = nodes
        self._loop = asyncio.get_running_loop()
        self._server = socket_in(mesh.spaces.of(near))
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(256)

    async def serve(self) -> None:
        """Let connections out beside the far node."""
        listener = await self._nodes[self.far].listen(self.PORT)
        async for incoming in listener:
            sock = socket_in(self.mesh.spaces.of(self.far))
            sock.connect(("127.0.0.1", self.sink.port))
            await incoming.attach(sock)

    async def open(self) -> socket.socket:
        opened = await self._nodes[self.near].open(self.far, self.PORT)
        sock = socket_in(self.mesh.spaces.of(self.near))
        sock.connect(self._server.getsockname())
        await opened.attach(self._server.accept()[0])
        return sock

    def connect(self) -> socket.socket:
        """As `open`, from another thread."""
        return asyncio.run_coroutine_threadsafe(self.open(), self._loop).result(30)

    def pids(self) -> list[int]:
        processes = self.mesh.processes
        return [processes[name].pid for name in self._nodes]


@contextlib.asynccontextmanager
async def forwarding(
    mesh: SpreadMesh, near: str, far: str, between: Iterable[str] = ()
) -> AsyncIterator[Forward]:
    """Forward from `near` to `far`; CPU time counts for them and for those `between`."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = {
            name: await stack.enter_async_context(connect_node(mesh.socket(name)))
            for name in (near, far, *between)
        }
        forward = Forward(mesh, near, far, nodes)
        serving = asyncio.create_task(forward.serve())
        stack.callback(serving.cancel)
        await asyncio.sleep(0.1)
        yield forward


class SshForward:
    """`ssh -L` between two namespaces."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], space: str, port: int) -> None:
        self._processes, self._space, self._port = processes, space, port

    def connect(self) -> socket.socket:
        sock = socket_in(self._space)
        sock.connect(("127.0.0.1", self._port))
        return sock

    def pids(self) -> list[int]:
        return [pid for process in self._processes for pid in family(process.pid)]


@contextlib.contextmanager
def ssh_forward(
    folder: Path, mesh: SpreadMesh, near: str, far: str, sink: Sink
) -> Iterator[SshForward]:
    """Run sshd beside `far` and `ssh -L` beside `near`; connections end at `sink`."""
    local = 2223
    forward = ["-L", f"127.0.0.1:{local}:127.0.0.1:{sink.port}"]
    with ssh_between(folder, mesh.spaces, near, far, local, forward) as running:
        sink.accept().close()  # that the question whether ssh listens led there
        yield SshForward(running, mesh.spaces.of(near), local)
