"""What of a cluster is on disk, in the home of each host: private, replaced whole."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from bus import keystore
from bus.errors import KeyFileError
from viscript.cluster.registry import Registry, RoleName
from viscript.cluster.talk import Known
from viscript.errors import Denied, Failed
from viscript.home import Home
from viscript.records import Status

T = TypeVar("T")


class Membership(Struct, frozen=True, kw_only=True):
    """`cluster.json` of a host that has joined: where, whom it trusts there, and with what."""

    endpoint: str
    broker_key: str
    name: str  # as the machine calls itself, later as the cluster does
    grant: RoleName  # what the people of other hosts may do here at most
    first: str = ""  # the key of the first host's daemon, pinned at the first contact


class Last(Struct, frozen=True):
    """What a host said last: for when it cannot be asked."""

    seen: float
    launches: list[Status]


def load_membership(home: Home) -> Membership | None:
    """None: this home has not joined; `Denied` or `Failed` name the file."""
    return _load(home, "cluster.json", Membership)


def save_membership(home: Home, membership: Membership) -> None:
    _save(home, "cluster.json", membership)


def load_registry(home: Home) -> Registry | None:
    return _load(home, "hosts.json", Registry)


def save_registry(home: Home, registry: Registry) -> None:
    _save(home, "hosts.json", registry)


def load_known(home: Home) -> Known | None:
    """None on a host that is alone."""
    return _load(home, "state/known-hosts.json", Known)


def save_known(home: Home, known: Known) -> None:
    _save(home, "state/known-hosts.json", known)


def load_last(home: Home) -> dict[str, Last]:
    return _load(home, "state/last-seen.json", dict[str, Last]) or {}


def save_last(home: Home, last: dict[str, Last]) -> None:
    _save(home, "state/last-seen.json", last)


def _load(home: Home, name: str, kind: type[T]) -> T | None:
    path = home.root / name
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(keystore.read_private(path), type=kind)
    except KeyFileError as error:
        raise Denied(str(error)) from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Failed(f"{path}: {error}; move it away") from None


def _save(home: Home, name: str, value: object) -> None:
    path = home.root / name
    text = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
    try:
        keystore.write_private(path, text)
    except OSError as error:
        raise Failed(f"{path}: cannot be written: {error.strerror}") from None
