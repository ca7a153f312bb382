"""Where the broker of a home listens."""

from __future__ import annotations

import errno
import logging
import socket

import msgspec

from bus.settings import BrokerSettings, SettingsError, load, save
from viscript import processes
from viscript.errors import Failed
from viscript.home import Home
from viscript.processes import Fate

log = logging.getLogger(__name__)


def choose(home: Home, configured: str | None, *, is_up: bool) -> str:
    """Where it does already, as configured, or a free loopback port; written down for the broker.

    What was not taken down (`is_up`) comes back to its old place, unless that is another program's now.
    """
    alive = processes.look(home.launches / "broker")[0] is not Fate.ENDED
    try:
        found = load(home.broker) if home.broker.exists() else None
    except SettingsError as error:
        raise Failed(f"{error}; move it away to have a new one made") from None
    kept = found.endpoint if found is not None else None
    if kept is not None and (alive or (is_up and not taken(kept))):
        if configured not in {None, kept}:
            log.warning("the broker stays at %s until `viscript down`", kept)
        return kept
    endpoint = configured or _free()
    settings = found or BrokerSettings(endpoint, "keys/broker.key", "access.json")
    save(home.broker, msgspec.structs.replace(settings, endpoint=endpoint))
    return endpoint


def _free() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def taken(endpoint: str) -> bool:
    """Whether somebody else listens there, as far as can be told."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except ValueError:
        return False
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
