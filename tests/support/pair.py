"""Broker, manager, nodes alpha and beta, and the SOCKS pair, as processes without a launcher."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bus.errors import BusError
from tests.support.mesh import Mesh
from tests.support.stack import free_port

PATIENCE = 15.0


class Pair(Mesh):
    """`near` is the SOCKS client on alpha, `far` the SOCKS server on beta."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.socks_port = 0

    def start_broker(self, names: Sequence[str]) -> None:
        for name in ("near", "near2", "far"):
            self._key(name, "app")
        super().start_broker(names)

    def start_far(self, *arguments: str) -> None:
        command = ["-m", "apps.socks.server", "--node", "beta", *arguments]
        self._spawn("far", command, self._environment("far"))

    async def exit_listens(self) -> None:
        """Wait until the SOCKS server listens at its node."""
        async with self.bus() as bus, asyncio.timeout(4 * PATIENCE):
            while True:
                with contextlib.suppress(BusError):
                    body = await bus.request("socks.stats", to=self.key("far"), timeout=5)
                    if msgspec.msgpack.decode(body)["key"]:
                        return
                await asyncio.sleep(0.05)

    def start_near(self, *arguments: str, name: str = "near") -> int:
        """Start a SOCKS client; give its port once it is on the bus."""
        port = free_port()
        listen = ("--listen", f"127.0.0.1:{port}")
        command = ["-m", "apps.socks.client", "--node", "alpha", "--exit", "beta", *listen]
        self._spawn(name, [*command, *arguments], self._environment(name))
        deadline = time.monotonic() + PATIENCE
        while "connected to node" not in self.log(name):
            if time.monotonic() > deadline or self.processes[name].poll() is not None:
                raise AssertionError(self.log(name))
            time.sleep(0.05)
        return port

    @contextlib.contextmanager
    def another_near(self, *arguments: str) -> Iterator[int]:
        """Run a second SOCKS client; give its port."""
        port = self.start_near(*arguments, name="near2")
        yield port
        process = self.processes.pop("near2")
        process.terminate()
        assert process.wait(10) == 0, self.log("near2")
        (self.folder / "near2.log").unlink()


@contextlib.contextmanager
def running_pair(*far: str) -> Iterator[Pair]:
    """Run all of it; `far` are arguments of the SOCKS server."""
    with tempfile.TemporaryDirectory(prefix="pair-") as folder:
        pair = Pair(Path(folder))
        try:
            pair.start_broker(["alpha", "beta"])
            pair.start_manager()
            pair.start_node("alpha")
            pair.start_node("beta", "alpha")
            pair.start_far(*far)
            pair.socks_port = pair.start_near()
            yield pair
        finally:
            pair.stop()
