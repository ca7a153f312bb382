"""Super-packets cut into packets that any device takes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.tunnel import packets
from nodes.tunnel.cutting import cut
from nodes.tunnel.vnet import TCP4, TCP6, UDP4, UNFINISHED, Shape
from tests.support.ip_packets import tcp, udp, v4, v6


def pieces(packet: bytes, shape: Shape) -> list[bytes]:
    header = packets.parse(packet)
    assert header is not None
    return [bytes(piece) for piece in cut(memoryview(packet), header, shape)]


def sound(packet: bytes) -> packets.Header:
    """The packet is one, and all its checksums are right."""
    header = packets.parse(packet)
    assert header is not None
    if header.version == 4:
        assert packets.checksum(packet[: header.size]) == 0
    body = packet[header.size :]
    pseudo = header.source + header.destination + struct.pack(">II", len(body), header.protocol)
    assert packets.checksum(pseudo + body) == 0
    return header


@given(
    st.binary(min_size=1, max_size=6000), st.integers(50, 1380), st.booleans(), st.integers(0, 3)
)
def test_tcp_says_the_same_in_many_packets(
    payload: bytes, size: int, six: bool, options: int
) -> None:
    segment = bytearray(tcp(payload, options=b"\1" * 4 * options))
    segment[13] = 0x80 | 0x10 | 0x09  # CWR, ACK, PSH, FIN
    struct.pack_into(">I", segment, 4, 0xFFFFFF00)
    make, kind = (v6, TCP6) if six else (v4, TCP4)
    ends = ("fd00::1", "fd00::2") if six else ("10.0.0.1", "10.0.0.2")
    packet = make(*ends, 6, bytes(segment))
    said = b""
    found = pieces(packet, Shape(kind | UNFINISHED, size))
    for number, piece in enumerate(found):
        header = sound(piece)
        at = header.size
        (sequence,) = struct.unpack_from(">I", piece, at + 4)
        assert sequence == (0xFFFFFF00 + len(said)) & 0xFFFFFFFF
        flags = piece[at + 13]
        assert bool(flags & 0x80) == (number == 0)
        assert bool(flags & 0x09) == (number == len(found) - 1)
        front = at + 20 + 4 * options
        assert len(piece) - front <= size
        if not six:
            assert struct.unpack_from(">H", piece, 4) == (1 + number,)
        said += piece[front:]
    assert said == payload


@given(st.binary(min_size=1, max_size=6000), st.integers(50, 1380), st.booleans())
def test_udp_is_cut_into_its_datagrams(payload: bytes, size: int, six: bool) -> None:
    make = v6 if six else v4
    ends = ("fd00::1", "fd00::2") if six else ("10.0.0.1", "10.0.0.2")
    packet = make(*ends, 17, udp(payload))
    found = pieces(packet, Shape(UDP4 | UNFINISHED, size))
    said = []
    for piece in found:
        at = sound(piece).size
        assert struct.unpack_from(">H", piece, at + 4) == (len(piece) - at,)
        said.append(piece[at + 8 :])
    assert said == [payload[at : at + size] for at in range(0, len(payload), size)]


def test_an_unfinished_checksum_is_finished() -> None:
    (piece,) = pieces(v4("10.0.0.1", "10.0.0.2", 6, tcp(b"hello")), Shape(UNFINISHED, 0))
    sound(piece)
    assert piece.endswith(b"hello")


@pytest.mark.parametrize(
    "packet",
    [
        v4("1.1.1.1", "2.2.2.2", 1, bytes(100)),
        v4("1.1.1.1", "2.2.2.2", 6, bytes(19)),
        v4("1.1.1.1", "2.2.2.2", 17, bytes(7)),
        v4("1.1.1.1", "2.2.2.2", 6, tcp(b"x"), fragment=0x2000),
        v4("1.1.1.1", "2.2.2.2", 6, bytes(12) + b"\xf0" + bytes(20)),
        v4("1.1.1.1", "2.2.2.2", 6, bytes(40)),
    ],
)
def test_what_cannot_be_cut_is_nothing(packet: bytes) -> None:
    assert pieces(packet, Shape(TCP4 | UNFINISHED, 100)) == []
