"""The broker's configuration file, `broker.json`: strict, paths relative to its folder."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from bus import keystore
from bus.errors import BusError


class SettingsError(BusError):
    """The configuration file is missing or wrong; the message names it."""


class BrokerFiles(Struct, frozen=True):
    """Where a broker listens and where its key and its access list are."""

    endpoint: str
    key_file: Path
    access_file: Path
    monitor: tuple[str, int] | None = None  # pages over HTTP
    topics_file: Path | None = None  # the store of durable topics; None: there are none


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    endpoint: str  # tcp://HOST:PORT; port 0 takes a free one
    key_file: str
    access_file: str
    monitor: str = ""  # 127.0.0.1:PORT: pages over HTTP, see docs/monitoring.md; empty: none

    topics_file: str = "topics.db"  # made with the first durable topic

    def files(self, folder: Path) -> BrokerFiles:
        """Where everything is; `ValueError` when `monitor` is no loopback address."""
        monitor = loopback(self.monitor) if self.monitor else None
        return BrokerFiles(
            self.endpoint, folder / self.key_file, folder / self.access_file, monitor,
            folder / self.topics_file,
        )  # fmt: skip


def load(path: Path) -> BrokerSettings:
    """`SettingsError` names the file and what to do."""
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=BrokerSettings)
        settings.files(path.parent)
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file; make one: bus-broker init {path.parent}"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: {error}") from None
    return settings


def loopback(text: str) -> tuple[str, int]:
    """Host and port of the monitor's ``127.0.0.1:PORT`` or ``[::1]:PORT``; `ValueError` tells a wrong one."""
    import ipaddress

    host, _, port = text.rpartition(":")
    wanted = "write 127.0.0.1:PORT"
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError(f"monitor: {text!r} has no port from 0 to 65535; {wanted}")
    try:
        address = ipaddress.ip_address(host[1:-1] if host[:1] + host[-1:] == "[]" else host)
    except ValueError:
        raise ValueError(f"monitor: {text!r} does not begin with an address; {wanted}") from None
    if not address.is_loopback:
        problem = (
            f"monitor: {host} is not a loopback address, and the pages ask nobody who they are"
        )
        raise ValueError(f"{problem}; {wanted}")
    return str(address), int(port)


def save(path: Path, settings: BrokerSettings) -> None:
    keystore.write_private(
        path, msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
    )
