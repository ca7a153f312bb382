"""What a cluster needs of the host's own launcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from viscript.cluster.numbers import Block, Numbers
from viscript.cluster.talk import Directory
from viscript.home import Home
from viscript.records import Record


class Counted(Protocol):
    """Where ids come from: `viscript.state.Store`."""

    more_numbers: Callable[[], Block | None]

    @property
    def highest(self) -> int: ...
    @property
    def numbers(self) -> Numbers | None: ...
    def set_numbers(self, numbers: Numbers) -> None: ...


class Placed(Protocol):
    @property
    def launcher(self) -> str: ...  # the daemon's public key


class Present(Protocol):
    """Who is on the bus."""

    @property
    def online(self) -> set[str]: ...


class Launching(Protocol):
    """`viscript.launcher.Launcher`, as far as it goes here."""

    home: Home
    records: dict[int, Record]
    directory: Directory | None
    host: str

    @property
    def store(self) -> Counted: ...
    @property
    def place(self) -> Placed: ...
    @property
    def membership(self) -> Present | None: ...
    def be_called(self, host: str) -> None: ...
