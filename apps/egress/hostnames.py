"""What a host may be called: addresses in all their spellings, names, and the system's two files of them.

An exit decides by what it reads here, and asks the resolver for nothing else. Spellings that the C library
takes for an IPv4 address (`127.1`, `0x7f000001`, `017700000001`) are addresses here too, so that none of
them reaches a resolver as a name and comes back as something else.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

Address = IPv4Address | IPv6Address

MAX_NAME: Final = 253  # characters (RFC 1035 section 3.1, as text)
MAX_SERVERS: Final = 3  # as the C library (MAXNS)
MAX_HOSTS: Final = 50_000  # names of a hosts file

LOOPBACK: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class NotAName(ValueError):
    """Neither an address nor a host name."""


def address_of(text: str) -> Address:
    """Read an address as a resolver gives it: without the scope of a link-local one; ValueError."""
    return ip_address(text.partition("%")[0])


def read_host(text: str) -> Address | str:
    """An address, or a name in lower case without its last dot; raises NotAName."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        return address_of(text)
    except ValueError:
        pass
    name = text.removesuffix(".").lower()
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # No top-level domain is a number, and none ever will be: this was to be an address.
        return _loose_ipv4(labels)
    if not name.isascii() or len(name) > MAX_NAME:
        raise NotAName("not a host name")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise NotAName("not a host name")
    return name


def known(name: str) -> tuple[Address, ...] | None:
    """What needs no resolver (RFC 6761, RFC 7686): addresses, () for no such name, None to go on."""
    last = name.rpartition(".")[2]
    if last == "localhost":
        return LOOPBACK
    return () if last in {"invalid", "onion"} else None


def read_servers(resolv_conf: str) -> list[str]:
    """The `nameserver` lines of /etc/resolv.conf; without one the C library asks this machine."""
    found: list[str] = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address_of(words[1])
        except ValueError:
            continue
        found.append(words[1])
    return found[:MAX_SERVERS] or ["127.0.0.1"]


def read_hosts(hosts: str) -> dict[str, tuple[Address, ...]]:
    """/etc/hosts: addresses by name, in the order of the lines."""
    found: dict[str, list[Address]] = {}
    for line in hosts.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2 or len(found) >= MAX_HOSTS:
            continue
        try:
            address = address_of(words[0])
        except ValueError:
            continue
        for word in words[1:]:
            found.setdefault(word.removesuffix(".").lower(), []).append(address)
    return {name: tuple(dict.fromkeys(addresses)) for name, addresses in found.items()}


def _loose_ipv4(parts: list[str]) -> IPv4Address:
    """One to four numbers, decimal, octal or hexadecimal; the last fills what is left (inet_aton)."""
    if len(parts) > 4:
        raise NotAName("not an address")
    numbers = [_number(part) for part in parts]
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        raise NotAName("not an address")
    value = last
    for place, number in enumerate(first):
        value += number << 8 * (3 - place)
    return IPv4Address(value)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or len(text) > 40:
        raise NotAName("not an address")
    try:
        if text.startswith("0x"):
            return int(text[2:] or "0", 16)
        return int(text, 8 if text.startswith("0") else 10)
    except ValueError:
        raise NotAName("not an address") from None
