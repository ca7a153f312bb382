"""The parts of an IP packet that a tunnel looks at or changes. Pure.

Headers as in RFC 791 and RFC 8200. Nothing here trusts a length that it did not compare with the
bytes that are there.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple
from zlib import crc32

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58
LEAST: Final = 20  # bytes of the shortest IP header
LARGEST: Final = 65_535  # bytes of a packet

_V4: Final = struct.Struct(">BBHHHBBH4s4s").unpack_from  # RFC 791, section 3.1
_V6: Final = struct.Struct(">IHBB16s16s").unpack_from  # RFC 8200, section 3
_V6_SIZE: Final = 40
_FRAGMENT: Final = 0x3FFF  # more fragments, or an offset
_DONT_FRAGMENT: Final = 0x4000
_WORD: Final = struct.Struct(">H")
_ECN: Final = 3  # the bits of ECN in TOS and traffic class (RFC 3168)
_CE: Final = 3


class Header(NamedTuple):
    """What an IP header says, compared with the packet's size."""

    version: int
    size: int  # bytes before the transport's header
    protocol: int  # IPv6: of the first header after the fixed one
    source: bytes
    destination: bytes
    whole: bool  # no fragment


def parse(packet: memoryview | bytes | bytearray) -> Header | None:
    """The header of exactly one packet; None when the bytes are not that."""
    length = len(packet)
    if length < LEAST:
        return None
    first = packet[0]
    if first >> 4 == 4:
        _, _, total, _, fragment, _, protocol, _, source, destination = _V4(packet)
        size = (first & 15) << 2
        if size < LEAST or total != length or size > length:
            return None
        return Header(4, size, protocol, source, destination, not fragment & _FRAGMENT)
    if first >> 4 == 6 and length >= _V6_SIZE:
        _, payload, protocol, _, source, destination = _V6(packet)
        if payload + _V6_SIZE != length:
            return None
        return Header(6, _V6_SIZE, protocol, source, destination, protocol != 44)
    return None


def flow(packet: memoryview | bytes | bytearray, header: Header) -> bytes:
    """What tells one flow from others: both addresses, protocol, ports where there are any."""
    size, protocol = header.size, header.protocol
    addresses = bytes(packet[12:20] if header.version == 4 else packet[8:40])
    if header.whole and (protocol in {TCP, UDP}):
        return addresses + packet[size : size + 4] + bytes((protocol,))
    return addresses + bytes((protocol,))


def number(flow: bytes, of: int) -> int:
    """One of `of` numbers from 0 on, the same for a flow always."""
    return crc32(flow) % of


def may_not_be_cut(packet: memoryview | bytes | bytearray, header: Header) -> bool:
    """Whether the sender wants to hear of a packet that is too big instead of having it cut."""
    return header.version == 6 or bool(_WORD.unpack_from(packet, 6)[0] & _DONT_FRAGMENT)


def mark_congestion(packet: bytearray, version: int) -> bool:
    """Set ECN-CE (RFC 3168) if the flow knows it; False when the packet must be dropped instead."""
    if version == 4:
        tos = packet[1]
        if not tos & _ECN:
            return False
        if tos & _ECN != _CE:
            before = _WORD.unpack_from(packet, 0)[0]
            packet[1] = tos | _CE
            _WORD.pack_into(packet, 10, _update(_WORD.unpack_from(packet, 10)[0], before, packet))
        return True
    if not packet[1] >> 4 & _ECN:
        return False
    packet[1] |= _CE << 4
    return True


def checksum(data: bytes | bytearray | memoryview) -> int:
    """The Internet checksum (RFC 1071) of `data`, which is not all zeros."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    # 2^16 is 1 modulo 65535: so the number as a whole leaves the sum of its words.
    total = int.from_bytes(data, "big") % 0xFFFF
    return 0xFFFF - total if total else 0


def _update(old: int, before: int, packet: bytearray) -> int:
    """The checksum of an IPv4 header whose first word was `before` (RFC 1624)."""
    total = (~old & 0xFFFF) + (~before & 0xFFFF) + int(_WORD.unpack_from(packet, 0)[0])
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
