"""Super-packets and unfinished checksums made into packets that any device takes. Pure, and slow.

For a device that has several peers of which one takes less: telling the kernel to give less would slow the
others down, too, and any peer could bring that about.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from nodes.tunnel.packets import TCP, UDP, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nodes.tunnel.packets import Header
    from nodes.tunnel.vnet import Shape

_WORD: Final = struct.Struct(">H")
_LONG: Final = struct.Struct(">I")
_SUM_AT: Final = {TCP: 16, UDP: 6}  # in the transport's header
_FIN_PSH, _CWR = 0x09, 0x80


def cut(packet: memoryview, header: Header, shape: Shape) -> Iterator[bytearray]:
    """Packets that say the same, each complete; none where the headers do not fit the shape."""
    at, protocol = header.size, header.protocol
    transport = len(packet) - at
    if protocol not in _SUM_AT or not header.whole or transport < (20 if protocol == TCP else 8):
        return
    if not shape.size:
        yield _finished(bytearray(packet), header)
        return
    size = packet[at + 12] >> 4 << 2 if protocol == TCP else 8
    if size < 8 or size > transport:
        return
    front, payload = packet[: at + size], packet[at + size :]
    for number, begin in enumerate(range(0, len(payload), shape.size)):
        piece = bytearray(front) + payload[begin : begin + shape.size]
        last = begin + shape.size >= len(payload)
        _number(piece, header, number)
        if protocol == TCP:
            (sequence,) = _LONG.unpack_from(piece, at + 4)
            _LONG.pack_into(piece, at + 4, (sequence + begin) & 0xFFFFFFFF)
            # As in RFC 3168 section 6.1.2 and tcp_gso_segment of Linux.
            piece[at + 13] &= 0xFF ^ (0 if last else _FIN_PSH) ^ (_CWR if number else 0)
        else:
            _WORD.pack_into(piece, at + 4, len(piece) - at)
        yield _finished(piece, header)


def _number(piece: bytearray, header: Header, number: int) -> None:
    """Length, identification and checksum of the IP header of piece `number`."""
    if header.version == 6:
        _WORD.pack_into(piece, 4, len(piece) - header.size)
        return
    (first,) = _WORD.unpack_from(piece, 4)
    struct.pack_into(">HH", piece, 2, len(piece), (first + number) & 0xFFFF)
    _WORD.pack_into(piece, 10, 0)
    _WORD.pack_into(piece, 10, checksum(piece[: header.size]))


def _finished(packet: bytearray, header: Header) -> bytearray:
    """The packet with the checksum of its transport."""
    at, protocol = header.size, header.protocol
    where = at + _SUM_AT[protocol]
    _WORD.pack_into(packet, where, 0)
    length = len(packet) - at
    pseudo = header.source + header.destination + struct.pack(">II", length, protocol)
    found = checksum(pseudo + packet[at:])
    _WORD.pack_into(packet, where, 0xFFFF if protocol == UDP and not found else found)
    return packet
