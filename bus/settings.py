"""The broker's configuration file, `broker.json`: strict, paths relative to its folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bus.broker import BrokerFiles
from bus.errors import BusError


class SettingsError(BusError):
    """The configuration file is missing or wrong; the message names it."""


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoint: str  # tcp://HOST:PORT; port 0 takes a free one
    key_file: str
    access_file: str

    def files(self, folder: Path) -> BrokerFiles:
        return BrokerFiles(self.endpoint, folder / self.key_file, folder / self.access_file)


def load(path: Path) -> BrokerSettings:
    """`SettingsError` names the file and what to do."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=BrokerSettings)
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file; make one: bus-broker init {path.parent}"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: {error}") from None


def save(path: Path, settings: BrokerSettings) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")
