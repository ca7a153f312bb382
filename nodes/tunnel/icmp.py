"""The answer to a packet that is too big for the other end: ICMP and ICMPv6. Pure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from nodes.tunnel.packets import ICMP, ICMP6, TCP, UDP, checksum

if TYPE_CHECKING:
    from nodes.tunnel.packets import Header

_V4: Final = struct.Struct(">BBHHHBBH4s4s")
_V6: Final = struct.Struct(">IHBB16s16s")
_TTL: Final = 64
_QUOTED: Final = 548  # bytes of the packet in the answer: 576 in all (RFC 1812, section 4.3.2.3)
_QUOTED6: Final = 1232  # 1,280 in all (RFC 4443, section 3.2)
_ERRORS: Final = frozenset({3, 4, 5, 11, 12})  # ICMP types that are never answered (RFC 1122)
LEAST_V6: Final = 1280  # bytes that every link carries


def too_big(packet: memoryview, header: Header, mtu: int) -> bytes | None:
    """Tell the sender to send at most `mtu` bytes; None where nothing may be answered.

    The answer comes from the address that the packet is for: the tunnel has none of its own, and
    the sender looks only at what it sent.
    """
    if not header.whole or _is_error(packet, header):
        return None
    if header.version == 4:
        body = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + packet[:_QUOTED]
        body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
        ends = (header.destination, header.source)
        head = _V4.pack(0x45, 0, 20 + len(body), 0, 0, _TTL, ICMP, 0, *ends)
        return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body
    body = struct.pack(">BBHI", 2, 0, 0, max(mtu, LEAST_V6)) + packet[:_QUOTED6]
    ends = (header.destination, header.source)
    pseudo = ends[0] + ends[1] + struct.pack(">II", len(body), ICMP6)
    body = body[:2] + struct.pack(">H", checksum(pseudo + body)) + body[4:]
    return _V6.pack(6 << 28, len(body), ICMP6, _TTL, *ends) + body


def _is_error(packet: memoryview, header: Header) -> bool:
    """Whether the packet is an error itself, or too short to say."""
    if header.protocol in {TCP, UDP}:
        return False
    kind = packet[header.size] if len(packet) > header.size else 3
    if header.protocol == ICMP6:
        return kind < 128
    return header.protocol == ICMP and kind in _ERRORS
