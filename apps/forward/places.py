"""Places as the two programs take them on their command line."""

import argparse
from typing import NamedTuple


class Place(NamedTuple):
    """A port at an address of this machine's network, or at a node of the mesh."""

    host: str  # or the name or key of a node
    port: int

    def __str__(self) -> str:
        return (
            f"[{self.host}]:{self.port}" if self.host.count(":") > 1 else f"{self.host}:{self.port}"
        )


def address(text: str) -> Place:
    """Read `127.0.0.1:80`, `[::1]:80` or `host:80`; for argparse."""
    place = node_port(text)
    return place._replace(host=place.host.removeprefix("[").removesuffix("]"))


def node_port(text: str) -> Place:
    """Read `beta:22` or a key and a port; keys may have colons in them."""
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(
            f"{text!r}: a colon and a port are missing, as in {text}:22"
        )
    return Place(host, port_number(port))


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: ports go from 1 to 65535")
    return int(text)
