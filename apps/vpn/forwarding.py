"""Forwarding on the machine of an exit: turned on for it, and put back exactly as it was after the last one.

Several exits may share a machine, so what was there before is kept in a file under `RUN`, which is gone
after a restart of the machine, as the settings are. It is named after the cookie of the network
namespace that they belong to, and lists the exits that need them: the last one puts them back.
"""

import contextlib
import fcntl
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from apps.vpn.namespace import CannotSetUp, read_setting, write_setting

RUN: Final = Path("/run/viscript-exit")
SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h, since Linux 5.14
V4: Final = "net/ipv4/ip_forward"
V6: Final = "net/ipv6/conf/all/forwarding"


class Before(msgspec.Struct):
    """How it was, and for whom it is otherwise."""

    settings: dict[str, str]  # as write_setting takes them, in the order in which they are put back
    exits: list[str]  # their tags

    def forwarded(self, version: int) -> bool:
        """Whether the machine passed packets of this IP version on before."""
        return self.settings.get(V4 if version == 4 else V6) == "1"


def note(tag: str) -> Before:
    """How it was, now that the exit `tag` is to change it; raises CannotSetUp."""
    with _record() as file:
        before = _read(file) or Before(_current(), [])
        if tag not in before.exits:
            before.exits.append(tag)
        file.write_bytes(msgspec.json.encode(before))
    return before


def turn_on(before: Before) -> None:
    """Have the machine pass packets on; raises CannotSetUp."""
    # A machine that forwards takes no router advertisements, and loses its way out, unless told 2.
    for name, value in before.settings.items():
        if name.endswith("/accept_ra") and value == "1" and read_setting(name) == value:
            write_setting(name, "2")
    for name in (V4, V6):
        if name in before.settings and read_setting(name) != "1":
            write_setting(name, "1")


def put_back(tag: str, alive: set[str]) -> None:
    """The exit `tag` needs it no longer; if none that is `alive` does, all is as it was before."""
    with _record() as file:
        before = _read(file)
        if before is None:
            return
        before.exits = [other for other in before.exits if other != tag and other in alive]
        if before.exits:
            file.write_bytes(msgspec.json.encode(before))
            return
        for name, value in before.settings.items():
            if read_setting(name) not in {None, value}:  # None: a device that is gone
                write_setting(name, value)
        file.unlink()


def on_record() -> Before | None:
    """What was before, if something is changed now."""
    with _record() as file:
        return _read(file)


def _current() -> dict[str, str]:
    """All that turning it on changes: first what changes others, then those."""
    found = {}
    names = [V4, V6]
    for family in ("ipv4", "ipv6"):
        for device in sorted(Path("/proc/sys/net", family, "conf").glob("*")):
            if device.name not in {"all", "default"} or family == "ipv4":
                names.append(f"net/{family}/conf/{device.name}/forwarding")
            if family == "ipv6":
                names.append(f"net/ipv6/conf/{device.name}/accept_ra")
    for name in names:
        value = read_setting(name)
        if value is not None:
            found[name] = value
    return found


@contextlib.contextmanager
def _record() -> Iterator[Path]:
    """The record of this network namespace, locked."""
    try:
        RUN.mkdir(mode=0o755, exist_ok=True)
        with Path(RUN, "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(RUN, f"{_cookie():x}.json")
    except OSError as error:
        raise CannotSetUp(f"{RUN}: {error.strerror or error}") from None


def _read(file: Path) -> Before | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Before)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise CannotSetUp(f"{file}: {error}; put net.ipv4.ip_forward right and delete it") from None


def _cookie() -> int:
    """Names the network namespace of this thread, and no other until the machine is restarted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        raw = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return int.from_bytes(raw, sys.byteorder)
