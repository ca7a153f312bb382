"""Where an exit lets its users go: the policy, on the **resolved** address and port.

Whatever the spelling was, what arrives here is the address that would be dialled. Two lists:
`DENIED` is fixed, and is everything that is not the public internet. An allow entry opens a hole in
it: what it names is allowed, whatever `DENIED` says, because to reach a denied place is the only
reason to write one. What neither names is allowed. So an exit without entries reaches the public
internet and nothing of its own.

Addresses that carry an IPv4 address inside (mapped, NAT64, 6to4, Teredo) are denied as such: an
entry for `127.0.0.1/32` does not open `::ffff:127.0.0.1`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

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


class AllowError(ValueError):
    """An allow entry is not CIDR[:PORT[-PORT]]."""


@dataclass(frozen=True)
class Allow:
    """One entry: these addresses, on these ports."""

    network: Network
    ports: range

    @classmethod
    def parse(cls, text: str) -> "Allow":
        """Read `127.0.0.1/32`, `10.0.0.0/8:80`, `[::1]/128:8000-9000`; raise AllowError."""
        cidr, ports = _split(text)
        try:
            network = ip_network(cidr)
        except ValueError as error:
            raise AllowError(f"allow entry {text!r}: {error}") from None
        return cls(network, _parse_ports(text, ports))

    def covers(self, address: Address, port: int) -> bool:
        return address.version == self.network.version and (
            address in self.network and port in self.ports
        )


class Policy:
    """What one exit allows; immutable."""

    def __init__(self, allow: Iterable[Allow] = ()) -> None:
        self._allow = tuple(allow)

    def refusal(self, address: Address, port: int, own: Collection[Address] = ()) -> str | None:
        """Say why not, or None when it may be dialled.

        `own` are the exit's own addresses: what listens there is nobody's business, however public
        the address is.
        """
        if any(entry.covers(address, port) for entry in self._allow):
            return None
        for network, name in DENIED.items():
            if address.version == network.version and address in network:
                return f"{address} is {name}"
        if address in own:
            return f"{address} is this machine itself"
        if port in MAIL_PORTS:
            return f"port {port} is for mail"
        return None


def address_of(text: str) -> Address:
    """Read an address as a resolver gives it: without the scope of a link-local one; ValueError."""
    return ip_address(text.partition("%")[0])


def _split(text: str) -> tuple[str, str]:
    """Split CIDR and ports; an IPv6 network with ports has its address in brackets."""
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
        return range(65536)
    first, _, last = ports.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        raise AllowError(f"allow entry {text!r}: {ports!r} is no port or range of ports") from None
    if not found or found[0] < 1 or found[-1] > 65535:
        raise AllowError(f"allow entry {text!r}: ports go from 1 to 65535, the smaller first")
    return found
