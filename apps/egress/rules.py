"""Where an exit lets its users go: the policy, on the name, the **resolved** address and the port.

Whatever the spelling was, what arrives here is the address that would be dialled. In this order:

1. a deny entry refuses, whatever else is said;
2. an allow entry that names the address opens it, whatever follows: to reach a denied place is the only
   reason to write one;
3. `DENIED` is fixed, and is everything that is not the public internet; so are the exit's own addresses
   and the ports of mail;
4. the rest is allowed, or, with `only`, what an allow entry names: by address, or by the name that was
   asked for.

A name that is allowed opens nothing of 3: whoever holds a name decides where it points. Addresses that
carry an IPv4 address inside (mapped, NAT64, 6to4, Teredo) are denied as such: an entry for `127.0.0.1/32`
does not open `::ffff:127.0.0.1`.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from apps.egress.hostnames import Address, address_of

__all__ = ["Address", "Network", "Policy", "Rule", "RuleError", "address_of"]

Network = IPv4Network | IPv6Network
ALL_PORTS = range(65536)

# Spam is what exits are shut down for. An entry that names the port opens it.
MAIL_PORTS = frozenset({25, 465, 587})

DENIED: dict[Network, str] = {
    ip_network(text): name
    for text, name in {
        "0.0.0.0/8": "unspecified",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "carrier-grade NAT",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local (and cloud metadata)",
        "168.63.129.16/32": "cloud metadata",  # of Azure, on a public address
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "protocol assignments",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarking",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved (and broadcast)",
        "::/96": "unspecified, loopback or IPv4-compatible",
        "::ffff:0:0/96": "IPv4-mapped",
        "::ffff:0:0:0/96": "IPv4-translated",
        "64:ff9b::/96": "NAT64",
        "64:ff9b:1::/48": "NAT64",
        "100::/64": "discard",
        "2001::/23": "Teredo and protocol assignments",
        "2001:db8::/32": "documentation",
        "2002::/16": "6to4",
        "3fff::/20": "documentation",
        "5f00::/16": "segment routing",
        "fc00::/7": "private (and cloud metadata)",
        "fe80::/10": "link-local",
        "fec0::/10": "site-local",
        "ff00::/8": "multicast",
    }.items()
}


# All of IPv6 that is given out for the internet (RFC 4291 section 2.4, the registry of IANA).
GLOBAL: Network = ip_network("2000::/3")


class RuleError(ValueError):
    """An entry is neither CIDR[:PORT[-PORT]] nor NAME[:PORT[-PORT]]."""


@dataclass(frozen=True)
class Rule:
    """One entry: these addresses, or these names, on these ports."""

    network: Network | None
    names: tuple[str, ...] | None  # what stands between the stars of a name; None for a network
    ports: range
    text: str
    everywhere: bool = False  # every name and address

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read `127.0.0.1/32`, `10.0.0.0/8:80`, `[::1]/128:1-99`, `*.example.com:443`; raise RuleError.

        In a name `*` stands for any run of characters, dots too; alone, for every name and address.
        """
        place, ports = _split(text)
        found = _parse_ports(text, ports)
        if _NAMES.fullmatch(place) and not _NUMBER.search(place):
            parts = tuple(place.lower().removesuffix(".").split("*"))
            return cls(None, parts, found, text, everywhere=place == "*")
        try:
            return cls(ip_network(place), None, found, text)
        except ValueError as error:
            raise RuleError(
                f"entry {text!r}: {error}; or write a name: *.example.com:443"
            ) from None

    def covers(self, address: Address, port: int) -> bool:
        """Whether this names the address; a name never does."""
        return (
            self.network is not None
            and address.version == self.network.version
            and address in self.network
            and port in self.ports
        )

    def covers_name(self, name: str | None, port: int) -> bool:
        """Whether this names what was asked for; None when that was an address."""
        if self.names is None or port not in self.ports:
            return False
        return self.everywhere or (name is not None and _matches(self.names, name))


class Policy:
    """What one exit allows; immutable. With `only`, nothing that no allow entry names."""

    def __init__(
        self, allow: Iterable[Rule] = (), deny: Iterable[Rule] = (), *, only: bool = False
    ) -> None:
        self._allow = tuple(allow)
        self._deny = tuple(deny)
        self._only = only

    def refusal_of_name(self, name: str | None, port: int) -> str | None:
        """Say why not, before anything is resolved; None to go on. `name` is None for an address."""
        for rule in self._deny:
            if rule.covers_name(name, port):
                return f"{name or 'this address'} port {port} is denied by {rule.text}"
        return None

    def refusal(
        self, address: Address, port: int, own: Collection[Address] = (), name: str | None = None
    ) -> str | None:
        """Say why not, or None when it may be dialled.

        `own` are the exit's own addresses: what listens there is nobody's business, however public
        the address is. `name` is what was asked for, None if it was the address.
        """
        for rule in self._deny:
            if rule.covers(address, port) or rule.covers_name(name, port):
                return f"{address} port {port} is denied by {rule.text}"
        if any(rule.covers(address, port) for rule in self._allow):
            return None
        for network, what in DENIED.items():
            if address.version == network.version and address in network:
                return f"{address} is {what}"
        if address.version == 6 and address not in GLOBAL:
            return f"{address} is no address of the internet"
        if address in own:
            return f"{address} is this machine itself"
        return self._refusal_of_public(port, name)

    def _refusal_of_public(self, port: int, name: str | None) -> str | None:
        named = [rule for rule in self._allow if rule.covers_name(name, port)]
        if port in MAIL_PORTS and not any(rule.ports != ALL_PORTS for rule in named):
            return f"port {port} is for mail"
        if self._only and not named:
            return f"{name or 'this address'} port {port} is not among what is allowed here"
        return None


_NAMES = re.compile(r"[A-Za-z0-9_*.-]+")
_NUMBER = re.compile(r"(?:^|\.)[0-9]+\.?$")  # an address, or what was to be one


def _matches(parts: tuple[str, ...], name: str) -> bool:
    """Whether the parts are in the name, in order, at its ends the first and the last.

    Each is looked for once, where it comes first: no pattern makes a name take long.
    """
    if len(parts) == 1:
        return name == parts[0]
    first, *middle, last = parts
    if not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


def _split(text: str) -> tuple[str, str]:
    """Split place and ports; an IPv6 network with ports has its address in brackets."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        prefix, _, ports = rest.partition(":")
        return (address + prefix if bracket else text), ports
    if text.count(":") > 1:
        return text, ""
    cidr, _, ports = text.partition(":")
    return cidr, ports


def _parse_ports(text: str, ports: str) -> range:
    if not ports:
        return ALL_PORTS
    first, _, last = ports.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        raise RuleError(f"entry {text!r}: {ports!r} is no port or range of ports") from None
    if not found or found[0] < 1 or found[-1] > 65535:
        raise RuleError(f"entry {text!r}: ports go from 1 to 65535, the smaller first")
    return found
