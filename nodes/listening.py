"""An app's own port of this machine: taken before it joins the bus, so that who sees it can use it."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

CONFLICT: Final = 9  # exit code: the address is taken, or not of this machine

Address = tuple[str, int]


def ip_port(text: str, example: str = "127.0.0.1:20000") -> Address:
    """Read `127.0.0.1:80`, `[::1]:80` or `localhost:80`; for argparse, which is told the `example`."""
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        return str(ip_address(host)), range(65536)[int(port)]
    except (ValueError, IndexError):
        raise argparse.ArgumentTypeError(f"{text!r} is not IP:PORT, such as {example}") from None


def shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tcp(address: Address, backlog: int) -> socket.socket:
    """Listen there, without blocking and with TCP_NODELAY for those that come; raises OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.create_server(address, family=family, backlog=backlog)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.settimeout(0)
    return listener


def udp(address: Address) -> socket.socket:
    """A socket there for datagrams, which does not block; raises OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.settimeout(0)
    return sock


def or_exit(address: Address, take: Callable[[Address], socket.socket]) -> socket.socket:
    """What `take` gives; if it cannot be had, say why and the way out, and end with `CONFLICT`."""
    try:
        return take(address)
    except OSError as error:
        text = f"error: {shown(address)}: {why(error)}; free it, or choose another address"
        print(text, file=sys.stderr)  # noqa: T201 - the program's own output
        sys.exit(CONFLICT)


def why(error: OSError) -> str:
    """Give the reason alone: asyncio and socket put addresses into `strerror`."""
    if error.errno is not None and error.errno > 0:  # those of a resolver are below
        return os.strerror(error.errno)
    return error.strerror or "no answer in time"
