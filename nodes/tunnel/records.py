"""The records of a session that carry packets, bytes to values and back.

    PACKET   u8 8  | u8 shape | u16 size of segments | packet
    PACKETS  u8 9  | u8 0     | u16 0                | (u16 unfinished << 15 | size, packet) …
    TUNNEL   u8 10 | u8 what the device takes | u16 MTU, 0: there is no tunnel

PACKET and PACKETS travel in the ordered lanes 1 to 4, TUNNEL in lane 0. Specified in docs/protocol/mesh.md,
section 4. Pure.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final

from nodes.tunnel.packets import LEAST
from nodes.tunnel.vnet import NONE, UNFINISHED, Shape
from nodes.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD: Final = struct.Struct(">BBH")
ENTRY: Final = struct.Struct(">H")
CAPABILITY: Final = "tunnel"  # in the handshake, of a node that knows these records
MAX_JOINED: Final = 0x7FFF  # bytes of a packet that may be joined with others
JOINED: Final = HEAD.pack(9, 0, 0)  # what stands before all of them
_PLAIN: Final = Shape(NONE, 0)
_UNFINISHED: Final = Shape(UNFINISHED, 0)


class Kind(IntEnum):
    PACKET = 8
    PACKETS = 9
    TUNNEL = 10


FIRST: Final = Kind.PACKET  # records of smaller kinds are about streams


class Takes(IntFlag):
    """What a device can be given, and so what may be sent to its node."""

    CHECKSUM = 1  # unfinished checksums
    TCP = 2  # super-packets
    UDP = 4

    @property
    def words(self) -> list[str]:
        return [name.lower() for name, bit in Takes.__members__.items() if bit in self]


NOTHING: Final = Takes(0)
EVERYTHING: Final = Takes.CHECKSUM | Takes.TCP | Takes.UDP


def packet(shape: Shape, data: bytes | bytearray | memoryview) -> bytes:
    return HEAD.pack(Kind.PACKET, *shape) + data


def tunnel(takes: Takes, mtu: int) -> bytes:
    return HEAD.pack(Kind.TUNNEL, takes, mtu)


def parse_tunnel(record: memoryview) -> tuple[Takes, int]:
    """What the far end takes, and its MTU; bits of later versions are left out. Raises WireError."""
    if len(record) < HEAD.size:
        raise WireError(f"TUNNEL of {len(record)} bytes, it has {HEAD.size}")
    _, takes, mtu = HEAD.unpack_from(record)
    return Takes(takes & EVERYTHING), mtu


def entry(data: bytes | bytearray | memoryview, *, unfinished: bool) -> bytes:
    """What stands before a packet that is joined with others."""
    return ENTRY.pack(unfinished << 15 | len(data))


def packets(record: memoryview) -> Iterator[tuple[Shape, memoryview]]:
    """The packets of a PACKET or PACKETS record; raises WireError where it is malformed."""
    if len(record) < HEAD.size + LEAST:
        raise WireError(f"record of {len(record)} bytes with packets")
    kind, shape, size = HEAD.unpack_from(record)
    if kind == Kind.PACKET:
        yield Shape(shape, size), record[HEAD.size :]
        return
    at, end = HEAD.size, len(record)
    while at < end:
        if end - at < ENTRY.size:
            raise WireError("PACKETS cut short")
        (word,) = ENTRY.unpack_from(record, at)
        at += ENTRY.size
        size = word & MAX_JOINED
        if not LEAST <= size <= end - at:
            raise WireError(f"PACKETS with a packet of {size} bytes, {end - at} left")
        yield (_UNFINISHED if word >> 15 else _PLAIN), record[at : at + size]
        at += size
