"""The virtio header in front of each packet of a TUN device with IFF_VNET_HDR.

    u8 flags | u8 gso_type | u16 hdr_len | u16 gso_size | u16 csum_start | u16 csum_offset

10 bytes in the byte order of the host (linux/virtio_net.h). Between nodes only type, size and whether the
checksum is unfinished travel, as one byte and a number: the header itself is made anew from the
packet at the other end, for the kernel believes what stands there. Pure.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from nodes.tunnel.packets import TCP, UDP

if TYPE_CHECKING:
    from nodes.tunnel.packets import Header

HEADER: Final = struct.Struct("=BBHHHH")
PLAIN: Final = bytes(HEADER.size)  # nothing special about the packet

NONE: Final = 0
TCP4: Final = 1
TCP6: Final = 4
UDP4: Final = 5  # UDP_L4, of both versions of IP
ECN: Final = 0x80  # of the type: the flow uses ECN
UNFINISHED: Final = 0x40  # ours: the checksum holds the sum of the pseudo-header only
_NEEDS_CSUM: Final = 1

MAX_SEGMENTS: Final = 512  # of TCP in one packet: more would be a flood
MAX_UDP_SEGMENTS: Final = 64  # what the kernel takes since 4.18 (UDP_MAX_SEGMENTS)
LEAST_SEGMENT: Final = 48  # bytes of payload, as TCP_MIN_SND_MSS
_CSUM_OFFSET: Final = {TCP: 16, UDP: 6}
_LEAST_TRANSPORT: Final = {TCP: 20, UDP: 8}
_GSO: Final = {(TCP4, 4, TCP), (TCP6, 6, TCP), (UDP4, 4, UDP), (UDP4, 6, UDP)}


class Shape(NamedTuple):
    """What travels of a header: `kind` is the type, with ECN and UNFINISHED."""

    kind: int
    size: int  # bytes of payload in each segment, 0 for a packet that is one


class BadShape(ValueError):
    """A header, or what travels of one, that does not fit its packet; the text says where."""


def describe(vnet: bytes | memoryview) -> Shape:
    """What is to travel of the header that the kernel wrote."""
    flags, kind, _, size, _, _ = HEADER.unpack_from(vnet)
    if not kind:
        return Shape(UNFINISHED if flags & _NEEDS_CSUM else NONE, 0)
    return Shape(kind | UNFINISHED, size)


def rebuild(packet: memoryview, header: Header, shape: Shape, mtu: int) -> bytes:
    """The header to write before `packet`, whose IP header was parsed; raises BadShape.

    mtu: of the device, which no segment may exceed.
    """
    kind = shape.kind & ~(ECN | UNFINISHED)
    if shape.kind == NONE:
        return PLAIN
    at, protocol = header.size, header.protocol
    offset = _CSUM_OFFSET.get(protocol)
    if offset is None or not header.whole:
        raise BadShape(f"an unfinished checksum in protocol {protocol} or a fragment")
    payload = len(packet) - at - _LEAST_TRANSPORT[protocol]
    if payload < 0:
        raise BadShape("no room for the transport's header")
    if not kind:
        return HEADER.pack(_NEEDS_CSUM, NONE, 0, 0, at, offset)
    if (kind, header.version, protocol) not in _GSO:
        raise BadShape(f"segmentation type {kind} of protocol {protocol} in IPv{header.version}")
    size, most = 8, MAX_UDP_SEGMENTS
    if protocol == TCP:
        size, most = packet[at + 12] >> 4 << 2, MAX_SEGMENTS
        payload -= size - 20
    if size < _LEAST_TRANSPORT[protocol] or payload <= 0:
        raise BadShape("segmentation of a packet without payload")
    if not LEAST_SEGMENT <= shape.size <= mtu - at - size or payload > shape.size * most:
        raise BadShape(f"segments of {shape.size} bytes, {payload} in all, on an MTU of {mtu}")
    return HEADER.pack(_NEEDS_CSUM, shape.kind & ~UNFINISHED, at + size, shape.size, at, offset)
