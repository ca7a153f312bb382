"""One look at the mesh: who is there, what everybody is called, which node is asked, and asking it.

Names are looked up in this order: the user's own (`viscript node name`), a key, the name a node gave itself.
Without a manager the names of the last look are used, which are kept in the home; they are also what
completion offers.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from bus.errors import BusError, NotPresent
from bus.identity import is_key, short
from nodes import api
from viscript import options
from viscript.addresses import Addresses
from viscript.commands.bus import typed
from viscript.commands.bus.connection import NAME, TIMEOUT, as_shown
from viscript.commands.bus.where import contexts, here
from viscript.errors import BadUsage, Denied, Failed, NoDaemon, NotFound, Unknown, ViscriptError
from viscript.output import note
from viscript.words import did_you_mean

if TYPE_CHECKING:
    from types import TracebackType

    from viscript.home import Home

T = TypeVar("T", bound=msgspec.Struct)
LOOK = 3.0  # s for the manager; without it the rest still works
NO_MANAGER = "no node manager is on the bus; start it: viscript start node-manager"


class NoManager(NoDaemon):
    """Nobody serves what the manager of a mesh does."""


class Mesh:
    """One short session with the bus: `with Mesh() as mesh`.

    With `admin` it may change routes; with `full` it knows not only the nodes, but routes and edges.
    """

    def __init__(self, *, admin: bool = False, full: bool = False) -> None:
        """`Denied` when our key file cannot be used, `NoDaemon` when nothing runs."""
        from bus.caller import Caller

        self.home = chosen_home()
        if admin and self.home is not None and (self.home.root / "cluster.json").exists():
            raise Denied(
                f"{self.home.root} has joined other hosts: say on the first host which way traffic goes, "
                "or use a context with the role admin"
            )
        self.place = here(admin=admin)
        self.addresses = Addresses(addresses_file(self.home))
        self._look_for = api.Look(routes=full, edges=full)
        self.missing: ViscriptError | None = None  # why there is no manager
        self.nodes: list[api.NodeInfo] = []
        self.routes: list[api.RouteInfo] = []
        self.edges: list[api.EdgeInfo] = []
        self._names: dict[str, str] = {}  # by key, as nodes call themselves
        self._caller = Caller(self.place.address, self.place.keypair(), name=NAME, timeout=TIMEOUT)

    def __enter__(self) -> Self:
        try:
            self._caller.__enter__()
        except BusError as error:
            raise as_shown(error, self.place) from None
        try:
            self._look()
        except BaseException:
            self._caller.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._caller.__exit__(kind, error, trace)

    # Asking -------------------------------------------------------------------------------------

    def ask(
        self,
        subject: str,
        query: msgspec.Struct | None,
        kind: type[T],
        *,
        to: str | None = None,
        timeout: float = TIMEOUT,
    ) -> T:
        """The answer of the manager, or of the node with the key `to`."""
        try:
            return api.unpack(self.raw(subject, query, to=to, timeout=timeout), kind)
        except api.BadBody as error:
            who = "the node manager" if to is None else f"node {self.name(to)}"
            raise Failed(f"{who} answers what is not understood: {error}") from None

    def raw(
        self,
        subject: str,
        query: msgspec.Struct | None,
        *,
        to: str | None = None,
        timeout: float = TIMEOUT,
    ) -> bytes:
        body = b"" if query is None else api.pack(query)
        try:
            return self._caller.request(subject, body, to=to, timeout=timeout)
        except NotPresent:
            if to is None:
                raise NoManager(f"{NO_MANAGER} ({self.place.name})") from None
            text = f"{self.name(to)} ({short(to)}) is not on the bus ({self.place.name})"
            raise NotFound(f"{text}; see: viscript node ls") from None
        except BusError as error:
            raise as_shown(error, self.place) from None

    def _look(self) -> None:
        look = self._look_for
        try:
            while True:
                found = self.ask(api.NODES, look, api.Nodes, timeout=LOOK)
                self.nodes += found.nodes
                self.routes += found.routes
                self.edges += found.edges
                if not found.next:
                    break
                look = msgspec.structs.replace(look, after=found.next)
        except (NoManager, Unknown) as error:
            self.missing = error
            self._names = _remembered(self.home)
            return
        self.nodes.sort(key=lambda node: node.name)
        self._names = {node.key: node.name for node in self.nodes}
        _remember(self.home, self._names)

    def must_have_manager(self) -> None:
        if self.missing is not None:
            raise self.missing

    # Names --------------------------------------------------------------------------------------

    def name(self, key: str) -> str:
        """What a node is called here: by the user, by itself, or a short form of its key."""
        return self.addresses.name(key) or self._names.get(key) or _print(key)

    def path(self, keys: list[str], *, begin: str = "") -> str:
        """A path in words, from the end `begin` if that is one."""
        ordered = keys[::-1] if keys and keys[-1] == begin else keys
        return " - ".join(self.name(key) for key in ordered)

    def find(self, word: str) -> str:
        """The key that is meant; `NotFound`."""
        known = self.addresses.key(word) or typed.key_or_none(word)
        if known is not None:
            return known
        for key, name in self._names.items():
            if name == word:
                return key
        names = sorted({*map(self.name, self._names), *self.addresses.keys})
        if self.missing is not None and not self._names:
            way = f"or name {word!r}: viscript node name set {word} KEY"
            raise NoDaemon(f"{self.missing}, {way}") from None
        there = f" (there are: {', '.join(names[:20])})" if names else ""
        text = f"no node {word!r} is known{did_you_mean(word, names)}{there}"
        raise NotFound(f"{text}; see: viscript node ls")

    def at(self, word: str | None, *, other: str = "") -> str:
        """The node that is asked: the one named, else the first of this home that is not `other`."""
        if word is not None:
            return self.find(word)
        here = [key for key in self.here() if key != other]
        if here:
            if self.missing is not None:
                note("No node manager answers; names are those of the last look.")
            return here[0]
        raise BadUsage(
            "no node runs in this home that could be asked; name one: --at NODE, see: viscript node ls"
        )

    def here(self) -> list[str]:
        """Keys of the nodes of this home, by their names."""
        if self.home is None:
            return []
        sockets = {path.stem.removeprefix("node-") for path in self.home.run.glob("node-*.sock")}
        found = [(name, key) for key, name in self._names.items() if name in sockets]
        return [key for _, key in sorted(found)]


def _print(key: str) -> str:
    """A short form of what should be a key, as somebody says."""
    return short(key) if is_key(key) else key[:16] or "?"


def chosen_home() -> Home | None:
    """The home that is meant, whether or not anything runs in it; None where a context is."""
    given = options.given
    context = given.context
    if context is None and given.home is None:
        context = os.environ.get("VISCRIPT_CONTEXT") or None
        if context is None and not os.environ.get("VISCRIPT_HOME"):
            context = contexts().selected
    return None if context else options.home()


def addresses_file(home: Home | None) -> Path:
    """Of a home; who uses a context has one for all of them."""
    if home is not None:
        return home.root / "addresses.json"
    from viscript.contexts import default_folder

    return default_folder() / "addresses.json"


def _file(home: Home) -> Path:
    return home.database.parent / "nodes.json"


def _remembered(home: Home | None) -> dict[str, str]:
    try:
        found = json.loads(_file(home).read_bytes()) if home is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _remember(home: Home | None, names: dict[str, str]) -> None:
    """Written only when it has changed; that it cannot be is not the command's problem."""
    if home is None or not names or _remembered(home) == names:
        return
    with suppress(OSError):
        fd, temporary = tempfile.mkstemp(dir=_file(home).parent, prefix="nodes.json")
        with os.fdopen(fd, "w") as file:
            json.dump(names, file)
        Path(temporary).replace(_file(home))
