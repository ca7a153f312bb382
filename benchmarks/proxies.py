"""SOCKS proxies between the same two namespaces, ours, shadowsocks-libev and `ssh -D`, and what loads them.

Ours is as shipped: links that are encrypted, streams that are sealed from end to end. Processes of the same
program in C make the load and answer it, so that little of the machine is spent on either.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ssh import answers, ssh_between
from benchmarks.tunnels import cpu_seconds, family
from tests.support.namespaces import Namespaces, SpreadMesh

NEAR, FAR = "a", "b"
TARGET, TARGET_PORT = "127.0.0.1", 8080
OURS, SHADOWSOCKS, SSH = "ours", "shadowsocks-libev aes-256-gcm", "ssh -D aes128-gcm"
PORTS = {OURS: 1080, SHADOWSOCKS: 1081, SSH: 1082}


@dataclass(frozen=True)
class Load:
    """So many connections, so many at once, each of which asks for so many bytes."""

    octets: int
    count: int
    at_once: int = 1
    pause: int = 0  # ms after each


@dataclass(frozen=True)
class Carried:
    """What a load took: seconds, those to the first byte (median), CPU seconds of all of the proxy."""

    seconds: float
    first_byte: float
    cpu: float


class SocksMesh(SpreadMesh):
    """Two linked nodes and the SOCKS pair beside them."""

    def start_broker(self, names: Sequence[str]) -> None:
        for name in ("near", "far"):
            self._key(name, "app")
        super().start_broker(names)

    def start_app(self, name: str, at: str, module: str, *arguments: str) -> None:
        """`at` is the node beside which it runs."""
        namespace = ["ip", "netns", "exec", self.spaces.of(at)]
        command = [*namespace, sys.executable, "-P", "-m", module, "--node", at, *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env={**os.environ, **self._environment(name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@dataclass
class Bench:
    """The proxies that run, and the server behind them."""

    program: Path
    spaces: Namespaces
    pids: dict[str, Callable[[], list[int]]]

    def run(self, proxy: str, load: Load) -> Carried:
        pids = self.pids[proxy]()
        before = cpu_seconds(pids)
        words = [
            PORTS[proxy],
            TARGET,
            TARGET_PORT,
            load.octets,
            load.count,
            load.at_once,
            load.pause,
        ]
        done = subprocess.run(
            ["ip", "netns", "exec", self.spaces.of(NEAR), self.program, "load", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{proxy}: {done.stderr}")
        seconds, first_byte = map(float, done.stdout.split())
        return Carried(seconds, first_byte, cpu_seconds(self.pids[proxy]()) - before)


@contextlib.contextmanager
def proxies() -> Iterator[Bench]:
    """Run all three."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="socks-")))
        program = folder / "socks_load"
        source = Path(__file__).with_name("socks_load.c")
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        spaces = Namespaces([NEAR, FAR])
        stack.callback(spaces.close)
        spaces.join(NEAR, FAR)
        serve = [str(program), "serve", TARGET, str(TARGET_PORT)]
        _start(stack, spaces, FAR, serve, (TARGET, TARGET_PORT), folder)
        bench = Bench(program, spaces, {})
        bench.pids[OURS] = stack.enter_context(_ours(folder, spaces))
        bench.pids[SHADOWSOCKS] = stack.enter_context(_shadowsocks(folder, spaces))
        forward = ["-D", f"127.0.0.1:{PORTS[SSH]}"]
        ssh = stack.enter_context(ssh_between(folder, spaces, NEAR, FAR, PORTS[SSH], forward))
        bench.pids[SSH] = lambda: [pid for process in ssh for pid in family(process.pid)]
        yield bench


@contextlib.contextmanager
def _ours(folder: Path, spaces: Namespaces) -> Iterator[Callable[[], list[int]]]:
    """CPU time counts for all of it: broker, manager, both nodes, both apps."""
    home = folder / "mesh"
    home.mkdir()
    mesh = SocksMesh(home, spaces)
    try:
        mesh.start_broker([NEAR, FAR])
        mesh.start_manager()
        mesh.start_node(NEAR)
        mesh.start_node(FAR, NEAR)
        mesh.start_app("far", FAR, "apps.socks.server", "--allow", f"{TARGET}/32:{TARGET_PORT}")
        listen = f"127.0.0.1:{PORTS[OURS]}"
        mesh.start_app("near", NEAR, "apps.socks.client", "--exit", FAR, "--listen", listen)
        if not answers(spaces.of(NEAR), ("127.0.0.1", PORTS[OURS]), mesh.processes["near"]):
            raise RuntimeError(mesh.log("near"))
        yield lambda: [process.pid for process in mesh.processes.values()]
    finally:
        mesh.stop()


@contextlib.contextmanager
def _shadowsocks(folder: Path, spaces: Namespaces) -> Iterator[Callable[[], list[int]]]:
    settings = {
        "server": spaces.address(FAR),
        "server_port": 8388,
        "local_address": "127.0.0.1",
        "local_port": PORTS[SHADOWSOCKS],
        "password": folder.name,
        "method": "aes-256-gcm",
        "mode": "tcp_only",
        "no_delay": True,
    }
    config = folder / "shadowsocks.json"
    config.write_text(json.dumps(settings))
    with contextlib.ExitStack() as stack:
        running = []
        for name, program, at in (
            (FAR, "ss-server", (spaces.address(FAR), 8388)),
            (NEAR, "ss-local", ("127.0.0.1", PORTS[SHADOWSOCKS])),
        ):
            command = [program, "-c", str(config)]
            running.append(_start(stack, spaces, name, command, at, folder))
        yield lambda: [process.pid for process in running]


def _start(
    stack: contextlib.ExitStack,
    spaces: Namespaces,
    name: str,
    command: list[str],
    at: tuple[str, int],
    folder: Path,
) -> subprocess.Popen[bytes]:
    """Run a program in a namespace, from when it listens."""
    path = folder / f"{Path(command[0]).name}.log"
    with path.open("ab") as log:
        started = subprocess.Popen(
            ["ip", "netns", "exec", spaces.of(name), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    stack.callback(started.wait, 10)
    stack.callback(started.terminate)
    if not answers(spaces.of(name), at, started):
        raise RuntimeError(f"{command[0]} does not run: {path.read_text()}")
    return started
