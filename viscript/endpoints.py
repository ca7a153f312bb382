"""Where the broker of a home listens."""

from __future__ import annotations

import errno
import logging
import secrets
import socket
from pathlib import Path

import msgspec

from bus.settings import BrokerSettings, SettingsError, load, save
from viscript import processes
from viscript.errors import Failed
from viscript.home import Home
from viscript.processes import Fate

log = logging.getLogger(__name__)

LOWEST, USUAL = 20000, 32768  # free ports are looked for from here to where outgoing ones begin
TRIES = 20


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
    """Not one that the kernel may give to somebody else's connection before the broker listens there."""
    for _ in range(TRIES):
        endpoint = f"tcp://127.0.0.1:{LOWEST + secrets.randbelow(_ephemeral() - LOWEST)}"
        if not taken(endpoint):
            return endpoint
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def _ephemeral() -> int:
    """The first port of those that outgoing connections get."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = USUAL
    return first if first > LOWEST else USUAL


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
