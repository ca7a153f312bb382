"""A mesh of two nodes with the apps of a test on them, as processes without a launcher."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.mesh import PATIENCE, Mesh


class AppMesh(Mesh):
    """Nodes alpha and beta; apps are named when they are started. `kinds` are roles on the bus."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.kinds: dict[str, str] = {}

    def start_broker(self, names: Sequence[str]) -> None:
        for name, role in self.kinds.items():
            self._key(name, role)
        super().start_broker(names)

    def start_app(self, name: str, module: str, *arguments: str, until: str) -> None:
        """Start an app and wait until its log has `until`."""
        self._spawn(name, ["-m", module, *arguments], self._environment(name))
        deadline = time.monotonic() + PATIENCE
        while until not in self.log(name):
            if time.monotonic() > deadline or self.processes[name].poll() is not None:
                raise AssertionError(self.log(name))
            time.sleep(0.05)

    def kill_app(self, name: str) -> None:
        self.kill(name)
        (self.folder / f"{name}.log").unlink()

    def end_app(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        assert process.wait(10) == 0, self.log(name)
        (self.folder / f"{name}.log").unlink()


@contextlib.contextmanager
def app_mesh(**kinds: str) -> Iterator[AppMesh]:
    """Run broker, manager, alpha and beta; `kinds` are the apps that will be started: name -> role."""
    with tempfile.TemporaryDirectory(prefix="apps-") as folder:
        mesh = AppMesh(Path(folder))
        mesh.kinds = kinds
        try:
            mesh.start_broker(["alpha", "beta"])
            mesh.start_manager()
            mesh.start_node("alpha")
            mesh.start_node("beta", "alpha")
            yield mesh
        finally:
            mesh.stop()
