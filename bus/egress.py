"""Whose the network sockets of a process are, so that rules of the kernel can name exactly these.

A VPN takes the whole machine's traffic into a tunnel, but not the links that carry the tunnel. `ip rule …
uidrange` and nftables' `meta skuid` tell them apart by the user that made the socket: with a user of
their own, who is nobody else, the links go outside and nothing beside them does (ADR 18).

The kernel takes the owner from the *file system user* of the thread that makes a socket, which a process
with CAP_SETUID may set for each thread. Files are opened as that user as well, so it is only held while
sockets are made. Linux.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

# Of no distribution: neither in Debian's ranges (policy, 9.2.2) nor in those of systemd (UIDS-GIDS).
UID: Final = 60_917
_ASK: Final = 0xFFFF_FFFF  # no user: setfsuid then changes nothing, and says who it is


class Egress:
    """`with egress:` makes sockets that belong to `uid`; with None to whom the process belongs to.

    What threads are started inside keep it for all sockets of theirs. Nothing may be awaited inside.
    """

    def __init__(self, uid: int | None = None) -> None:
        self.uid = uid
        self._before = 0
        self._setfsuid = None if uid is None else _function()

    def __enter__(self) -> Self:
        if self._setfsuid is not None:
            self._before = self._setfsuid(self.uid)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._setfsuid is not None:
            self._setfsuid(self._before)


def possible(uid: int) -> bool:
    """Whether this process may make sockets of `uid`."""
    setfsuid = _function()
    before = setfsuid(uid)
    taken: bool = setfsuid(_ASK) == uid
    setfsuid(before)
    return taken


def chosen(text: str) -> Egress:
    """As the command line says it: a uid, `none`, or `auto`: `UID` for who may. Raises ValueError."""
    if text == "none" or (text == "auto" and not possible(UID)):
        return Egress()
    if text == "auto":
        return Egress(UID)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < _ASK:
        raise ValueError(f"{text!r} is neither a uid nor auto nor none")
    if not possible(int(text)):
        raise ValueError(f"sockets of user {text} need CAP_SETUID: run it as root, or say none")
    return Egress(int(text))


def of_bus(endpoint: str) -> Egress | None:
    """Whose the connections with a broker at `endpoint` are; None: nobody's in particular.

    With one that other hosts can reach they are the links' user's, where the process may: a VPN of this
    machine would else cut off the daemon and the commands that are to end it.
    """
    transport, _, place = endpoint.partition("://")
    host = place.rpartition(":")[0].strip("[]")
    near = transport != "tcp" or host.startswith("127.") or host in {"localhost", "::1"}
    return Egress(UID) if not near and possible(UID) else None


def _function() -> ctypes._NamedFuncPointer:
    """The C library's, which is for the calling thread alone (setfsuid(2)); returns who it was before."""
    found = ctypes.CDLL(None).setfsuid
    found.argtypes, found.restype = [ctypes.c_uint32], ctypes.c_uint32
    return found
