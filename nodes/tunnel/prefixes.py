"""Which peer has which addresses: the longest prefix that contains an address decides.

Pure. An address is its 4 or 16 bytes, as it stands in a packet.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_REMEMBERED: Final = 4096  # addresses whose owner is remembered; then all are forgotten
_Owner = TypeVar("_Owner")


class BadPrefix(ValueError):
    """A text that is no prefix, or one that another owner has; the text says which."""


def parse(text: str) -> tuple[bytes, int]:
    """The address and the length of a prefix as people write it; raises BadPrefix.

    Bits of the host are dropped.
    """
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadPrefix(f"{text!r} is no prefix: write 10.1.2.0/24 or fd00::/64") from None
    return network.network_address.packed, network.prefixlen


class Prefixes(Generic[_Owner]):
    """Owners by prefix. A prefix has one owner; among those that contain an address the longest wins."""

    def __init__(self) -> None:
        self._owners: dict[tuple[bytes, int], _Owner] = {}
        # For each size of addresses (4 and 16 bytes): by length, longest first, owners by the bits.
        self._tables: dict[int, list[tuple[int, dict[int, _Owner]]]] = {4: [], 16: []}
        self._remembered: dict[bytes, _Owner | None] = {}

    def set(self, owner: _Owner, prefixes: Sequence[tuple[bytes, int]]) -> None:
        """Give an owner these prefixes and no others; raises BadPrefix and changes nothing then."""
        for address, length in prefixes:
            other = self._owners.get((address, length), owner)
            if other != owner:
                text = f"{ipaddress.ip_address(address)}/{length}"
                raise BadPrefix(f"{text} is another peer's: take it from that one first")
        kept = {prefix: known for prefix, known in self._owners.items() if known != owner}
        kept.update(dict.fromkeys(prefixes, owner))
        self._owners = kept
        self._rebuild()

    def of(self, address: bytes) -> _Owner | None:
        """Whose this address is."""
        remembered = self._remembered
        try:
            return remembered[address]
        except KeyError:
            owner = self._look_up(address)
            if len(remembered) >= MAX_REMEMBERED:
                remembered.clear()
            remembered[address] = owner
            return owner

    def length(self, address: bytes, owner: _Owner) -> int:
        """The length of the owner's prefix that contains the address; -1 when it is another's."""
        size = len(address)
        number = int.from_bytes(address, "big")
        for length, table in self._tables[size]:
            found = table.get(number >> (size * 8 - length))
            if found is not None:
                return length if found == owner else -1
        return -1

    def _look_up(self, address: bytes) -> _Owner | None:
        size = len(address)
        number = int.from_bytes(address, "big")
        for length, table in self._tables[size]:
            owner = table.get(number >> (size * 8 - length))
            if owner is not None:
                return owner
        return None

    def _rebuild(self) -> None:
        self._remembered.clear()
        tables: dict[int, dict[int, dict[int, _Owner]]] = {4: {}, 16: {}}
        for (address, length), owner in self._owners.items():
            size = len(address)
            bits = int.from_bytes(address, "big") >> (size * 8 - length)
            tables[size].setdefault(length, {})[bits] = owner
        for size, by_length in tables.items():
            self._tables[size] = sorted(by_length.items(), reverse=True)
