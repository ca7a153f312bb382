"""Virtio headers: what travels of them, and what is made of it at the other end."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.tunnel import packets, vnet
from nodes.tunnel.vnet import BadShape, Shape
from tests.support.ip_packets import tcp, tcp4, udp, udp4, v4, v6

MTU = 1420
TSO = vnet.TCP4 | vnet.UNFINISHED


def rebuilt(packet: bytes, shape: Shape, mtu: int = MTU) -> tuple[int, ...]:
    header = packets.parse(packet)
    assert header is not None
    return struct.unpack("=BBHHHH", vnet.rebuild(memoryview(packet), header, shape, mtu))


def test_a_plain_packet_has_ten_zeros() -> None:
    assert vnet.describe(bytes(10)) == Shape(0, 0)
    assert rebuilt(tcp4(b"x"), Shape(0, 0)) == (0, 0, 0, 0, 0, 0)


def test_an_unfinished_checksum_is_said_and_found_again() -> None:
    written = struct.pack("=BBHHHH", 1, 0, 0, 0, 20, 16)
    assert vnet.describe(written) == Shape(vnet.UNFINISHED, 0)
    assert rebuilt(tcp4(b"x"), Shape(vnet.UNFINISHED, 0)) == (1, 0, 0, 0, 20, 16)
    assert rebuilt(udp4(b"x"), Shape(vnet.UNFINISHED, 0)) == (1, 0, 0, 0, 20, 6)


@pytest.mark.parametrize(
    ("packet", "kind", "size", "expected"),
    [
        (tcp4(bytes(5000)), vnet.TCP4, 1380, (1, 1, 40, 1380, 20, 16)),
        (tcp4(bytes(5000)), vnet.TCP4 | vnet.ECN, 1380, (1, 0x81, 40, 1380, 20, 16)),
        (
            v4("1.1.1.1", "2.2.2.2", 6, tcp(bytes(5000), options=bytes(12))),
            vnet.TCP4,
            1368,
            (1, 1, 52, 1368, 20, 16),
        ),
        (v6("::1", "::2", 6, tcp(bytes(5000))), vnet.TCP6, 1360, (1, 4, 60, 1360, 40, 16)),
        (udp4(bytes(5000)), vnet.UDP4, 1392, (1, 5, 28, 1392, 20, 6)),
        (v6("::1", "::2", 17, udp(bytes(5000))), vnet.UDP4, 1372, (1, 5, 48, 1372, 40, 6)),
    ],
)
def test_a_super_packet_gets_the_header_that_fits_it(
    packet: bytes, kind: int, size: int, expected: tuple[int, ...]
) -> None:
    shape = vnet.describe(struct.pack("=BBHHHH", 1, kind, 999, size, 20, 16))
    assert shape == Shape(kind | vnet.UNFINISHED, size)
    assert rebuilt(packet, shape) == expected


@pytest.mark.parametrize(
    ("packet", "shape"),
    [
        (tcp4(bytes(5000)), Shape(TSO, 0)),
        (tcp4(bytes(5000)), Shape(TSO, 1)),
        (tcp4(bytes(5000)), Shape(TSO, 1381)),  # beyond the MTU
        (tcp4(bytes(5000)), Shape(TSO, 9000)),
        (tcp4(bytes(60000)), Shape(TSO, 100)),  # a flood of segments
        (udp4(bytes(6500)), Shape(vnet.UDP4 | vnet.UNFINISHED, 100)),
        (tcp4(bytes(5000)), Shape(vnet.TCP6 | vnet.UNFINISHED, 1380)),
        (tcp4(bytes(5000)), Shape(vnet.UDP4 | vnet.UNFINISHED, 1380)),
        (udp4(bytes(5000)), Shape(TSO, 1380)),
        (tcp4(bytes(5000)), Shape(3 | vnet.UNFINISHED, 1380)),  # UFO, which nobody offers
        (tcp4(bytes(5000)), Shape(2 | vnet.UNFINISHED, 1380)),
        (tcp4(b""), Shape(TSO, 1380)),  # no payload
        (v6("::1", "::2", 6, tcp(bytes(5000))), Shape(TSO, 1360)),
        (v6("::1", "::2", 43, bytes(5000)), Shape(vnet.TCP6 | vnet.UNFINISHED, 1360)),
        (v4("1.1.1.1", "2.2.2.2", 6, tcp(bytes(5000)), fragment=0x2000), Shape(TSO, 1380)),
        (v4("1.1.1.1", "2.2.2.2", 6, bytes(19)), Shape(vnet.UNFINISHED, 0)),
        (v4("1.1.1.1", "2.2.2.2", 17, bytes(7)), Shape(vnet.UNFINISHED, 0)),
        (v4("1.1.1.1", "2.2.2.2", 1, bytes(40)), Shape(vnet.UNFINISHED, 0)),
        (v4("1.1.1.1", "2.2.2.2", 6, b"\0" * 12 + b"\x40" + bytes(500)), Shape(TSO, 100)),
        (v4("1.1.1.1", "2.2.2.2", 6, b"\0" * 12 + b"\xf0" + bytes(40)), Shape(TSO, 100)),
    ],
)
def test_what_does_not_fit_its_packet_is_refused(packet: bytes, shape: Shape) -> None:
    with pytest.raises(BadShape):
        rebuilt(packet, shape)


@given(
    st.sampled_from([tcp4(bytes(3000)), udp4(bytes(3000)), v6("::1", "::2", 6, tcp(bytes(3000)))]),
    st.dictionaries(st.integers(0, 60), st.integers(0, 255), max_size=8),
    st.integers(0, 255),
    st.integers(0, 65535),
)
def test_whatever_a_peer_says_no_header_reaches_beyond_its_packet(
    packet: bytes, changes: dict[int, int], kind: int, size: int
) -> None:
    changed = bytearray(packet)
    for at, value in changes.items():
        changed[at] = value
    header = packets.parse(changed)
    if header is None:
        return
    try:
        made = vnet.rebuild(memoryview(changed), header, Shape(kind, size), MTU)
    except BadShape:
        return
    flags, gso, length, segment, start, offset = struct.unpack("=BBHHHH", made)
    assert flags in (0, 1)
    assert start + offset + 2 <= len(changed)
    if gso:
        assert flags == 1
        assert start < length < len(changed)
        assert length + segment <= MTU
        assert (len(changed) - length) / segment <= vnet.MAX_SEGMENTS
