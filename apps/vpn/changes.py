"""What the VPN changed on this machine, on disk before it is done: so that all can be put back by anybody.

The file is there from before the first change until after the last was put back; who finds it knows that
the VPN is on, whatever runs.
"""

from __future__ import annotations

import contextlib
import os
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from apps.vpn.killswitch import Policy
from apps.vpn.resolvconf import Before

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: Final = 1
NAME: Final = "vpn.json"
_Text = Annotated[str, msgspec.Meta(max_length=64)]


class ChangesError(Exception):
    """The file cannot be read or written; the text says why and the way out."""


class Changes(msgspec.Struct, frozen=True):
    """What is to be put back, and what was wanted."""

    exits: list[str]  # as they were named
    tun: _Text
    uid: int
    only: list[_Text]
    exclude: list[_Text]
    lan: bool
    own_dns: bool
    since: float  # Unix s
    resolv: Before | None = None  # None: not changed
    valid_mark: str | None = None  # net.ipv4.conf.all.src_valid_mark; None: not changed
    version: int = VERSION

    def policy(self, home: str) -> Policy:
        """Raises ValueError for a network that is none."""
        only, exclude = (tuple(map(ip_network, each)) for each in (self.only, self.exclude))
        return Policy(self.tun, self.uid, home, only, exclude, self.lan, self.own_dns)


def of_policy(policy: Policy, exits: Sequence[str], since: float) -> Changes:
    return Changes(
        list(exits), policy.tun, policy.uid, [str(each) for each in policy.only],
        [str(each) for each in policy.exclude], policy.lan, policy.own_dns, since,
    )  # fmt: skip


def place(home: Path) -> Path:
    """The file of a home."""
    return home / "state" / NAME


def load(file: Path) -> Changes | None:
    """None when there is none, so nothing was changed; raises ChangesError."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Changes)
        found.policy("")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ChangesError(f"{file}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        way = f"what resolv.conf was is not known any more; remove {file}, then: viscript vpn off"
        raise ChangesError(f"{file}: damaged ({error}); {way}") from None
    return found


def save(file: Path, changes: Changes) -> None:
    """Whole and on the disk when this returns; raises ChangesError."""
    new = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new.open("wb") as opened:
            opened.write(msgspec.json.format(msgspec.json.encode(changes), indent=2) + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
        new.rename(file)
        _sync(file.parent)
    except OSError as error:
        raise ChangesError(f"{file}: {error.strerror}; nothing was changed") from None


def remove(file: Path) -> None:
    """All is put back; raises ChangesError."""
    try:
        file.unlink(missing_ok=True)
        _sync(file.parent)
    except OSError as error:
        raise ChangesError(f"{file}: {error.strerror}") from None


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
