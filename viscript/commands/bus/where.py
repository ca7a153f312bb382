"""Which broker a verb talks to, and with which key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from viscript import options
from viscript.errors import BadUsage, Denied, NoDaemon

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bus.identity import Address, KeyPair
    from viscript.contexts import Contexts
    from viscript.home import Home

OTHER = "or name a broker: viscript bus context --help"


@dataclass(frozen=True)
class Where:
    """A broker and our key file there; `name` is for people."""

    address: Address
    key_file: Path
    name: str

    @property
    def remedy(self) -> str:
        """What to look at when nobody answers there."""
        if self.name.startswith("home "):
            return f"see: viscript status, {OTHER}"
        return (
            "does it run there, and does it have the key that is named? viscript bus context show"
        )

    def keypair(self) -> KeyPair:
        """`Denied` when the file cannot be used."""
        from bus import keystore
        from bus.errors import KeyFileError

        try:
            return keystore.load(self.key_file)
        except KeyFileError as error:
            raise Denied(f"{error} ({self.name})") from None


def here(*, admin: bool = False) -> Where:
    """What the options and the environment say; with `admin` and in a home, its admin's key."""
    given = options.given
    return find(given.context, given.home, os.environ, contexts(), admin=admin)


def contexts() -> Contexts:
    from viscript.contexts import Contexts, default_folder

    return Contexts(default_folder())


def find(
    context: str | None, home: str | None, environment: Mapping[str, str], known: Contexts,
    *, admin: bool = False,
) -> Where:  # fmt: skip
    """The first of what is given, by weight: options, then the environment, then what was chosen."""
    from viscript import home as homes

    if context and home:
        raise BadUsage("--context and --home name two brokers; give one of them")
    if context is None and home is None:
        context = environment.get("VISCRIPT_CONTEXT") or None
        if context is None and not environment.get("VISCRIPT_HOME"):
            context = known.selected
    if context is not None:
        found = known.load(context)
        return Where(found.address, Path(found.key_file), f"context {context}")
    return _of_home(homes.find(home, environment), admin=admin)


def _of_home(home: Home, *, admin: bool) -> Where:
    """The broker of an instance; it may run on when the daemon was killed."""
    import msgspec

    from bus.identity import Address
    from viscript.protocol import DaemonInfo

    try:
        info = msgspec.json.decode(home.daemon.read_bytes(), type=DaemonInfo)
    except FileNotFoundError:
        raise NoDaemon(f"{home.root}: nothing is running; start it: viscript up, {OTHER}") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise NoDaemon(f"{home.daemon}: cannot be read: {error}; run: viscript up") from None
    key = home.keys / ("admin.key" if admin else "cli.key")
    return Where(Address(info.endpoint, info.broker_key), key, f"home {home.root}")
