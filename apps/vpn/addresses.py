"""The addresses of an exit and of its clients, all derived from keys: the same wherever they are computed.

An exit has a private IPv4 network of its own and an IPv6 prefix (RFC 4193: `fd` and 40 bits), made of the
hash of its node's key, so that two exits seldom share one. In it the exit is number 1, and a client the
number that the hash of its key gives, or the next that is free. Clients never see each other's
addresses, nor is there a route to them on the exit's machine: they are known in its namespace only.
"""

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from bus.identity import to_bytes

EXIT: Final = 1  # the exit's own number, where its resolver answers
FIRST: Final = 2  # of a client
_CONTEXT: Final = b"viscript vpn addresses 1"
_CLIENTS6: Final = 0  # subnets of the IPv6 prefix
_LINK6: Final = 0xFFFF


class BadNetwork(ValueError):
    """Not a network in which clients can have addresses; the text says why."""


@dataclass(frozen=True)
class Plan:
    """The networks of one exit."""

    v4: IPv4Network
    v6: IPv6Network  # /64, of the clients
    link6: IPv6Network  # /126, between the namespace and the machine

    @classmethod
    def of(cls, key: str, v4: IPv4Network | None = None) -> "Plan":
        """The plan of the exit at the node `key`; `v4` takes the place of the derived network."""
        digest = hashlib.sha256(_CONTEXT + to_bytes(key)).digest()
        derived = IPv4Network((bytes([10, 64 + digest[5] % 128, 0, 0]), 16))
        prefix = int.from_bytes(b"\xfd" + digest[:5]) << 80
        return cls(
            v4 or derived,
            IPv6Network((prefix | _CLIENTS6 << 64, 64)),
            IPv6Network((prefix | _LINK6 << 64, 126)),
        )

    @property
    def room(self) -> int:
        """Clients that can have an address at the same time."""
        return self.v4.num_addresses - FIRST - 1  # the last is the broadcast address

    @property
    def gateway4(self) -> IPv4Address:
        return self.v4[EXIT]

    @property
    def gateway6(self) -> IPv6Address:
        return self.v6[EXIT]

    def address4(self, number: int) -> IPv4Address:
        return self.v4[number]

    def address6(self, number: int) -> IPv6Address:
        return self.v6[number]

    def wish(self, key: str) -> int:
        """The number that a client of this key has, if nobody else has it."""
        digest = hashlib.sha256(_CONTEXT + self.v4.network_address.packed + to_bytes(key)).digest()
        return FIRST + int.from_bytes(digest[:8]) % self.room


def client_network(text: str) -> IPv4Network:
    """Read a network for clients as a person gives it; raises BadNetwork."""
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise BadNetwork(f"{text!r}: {error}") from None
    if not network.is_private or network.is_loopback or network.is_link_local:
        raise BadNetwork(f"{text!r} is not a private network, such as 10.86.0.0/16")
    if not 8 <= network.prefixlen <= 28:
        raise BadNetwork(f"{text!r}: its prefix is /{network.prefixlen}, not between /8 and /28")
    return network
