"""A cluster on one machine: a first host and others, in homes of their own, joined as users do it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.instance import APPS, Instance
from tests.support.stack import free_port

# No autostart: what a host runs is what a test starts there.
QUIET = {name: {**app, "autostart": False} for name, app in APPS.items()}


class Cluster:
    """`first` is up and reachable at `endpoint`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.first = self.home("first")
        self.first.configure(QUIET, broker={"endpoint": f"tcp://{self.endpoint}"})
        self.first.run("up", "--detach")

    def home(self, name: str) -> Instance:
        made = Instance(self._folder / name)
        made.configure(QUIET)
        self._stack.callback(made.clean_up)
        return made

    def invite(self, *options: str) -> str:
        return self.first.ask("host", "invite", "--endpoint", self.endpoint, *options)["join"]

    def join(self, name: str, *invitation: str, options: tuple[str, ...] = ()) -> Instance:
        """One more host called `name`, up."""
        text = self.invite("--name", name, *invitation)
        other = self.home(name)
        other.run("join", *options, input=text + "\n")
        return other


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(folder, stack)
