"""What is read from IP headers, and the two things that are changed in packets."""

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodes.tunnel import packets
from tests.support.ip_packets import tcp, tcp4, udp, udp4, udp6, v4, v6


def plain_checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    data += b"\0" * (len(data) % 2)
    total = sum(word for (word,) in struct.iter_unpack(">H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def test_both_versions_are_read() -> None:
    header = packets.parse(tcp4(b"hello"))
    assert header is not None
    assert header[:3] == (4, 20, packets.TCP)
    assert header.source == ipaddress.ip_address("10.9.0.1").packed
    assert header.destination == ipaddress.ip_address("10.9.0.2").packed
    header = packets.parse(udp6(b"hello"))
    assert header is not None
    assert header[:3] == (6, 40, packets.UDP)
    assert header.destination == ipaddress.ip_address("fd09::2").packed


def test_options_of_ipv4_are_part_of_its_header() -> None:
    header = packets.parse(v4("1.2.3.4", "5.6.7.8", 17, udp(b"x"), options=b"\1" * 8))
    assert header is not None
    assert header.size == 28


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x2001])
def test_fragments_are_known(fragment: int) -> None:
    header = packets.parse(v4("1.2.3.4", "5.6.7.8", 17, udp(b"x"), fragment=fragment))
    assert header is not None
    assert not header.whole
    header = packets.parse(v6("::1", "::2", 44, b"\x11" + bytes(15)))
    assert header is not None
    assert not header.whole


@pytest.mark.parametrize(
    "data",
    [
        b"",
        tcp4()[:19],
        tcp4(b"hello")[:-1],
        tcp4(b"hello") + b"x",
        udp6(b"hello")[:-1],
        udp6(b"hello") + b"x",
        udp6()[:39],
        b"\x44" + tcp4()[1:],  # a header of 16 bytes
        b"\x4f" + tcp4()[1:],  # one that is longer than the packet
        b"\x55" + tcp4()[1:],
        bytes(40),
    ],
)
def test_what_is_not_exactly_one_packet_is_none(data: bytes) -> None:
    assert packets.parse(data) is None


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    header = packets.parse(data)
    if header is not None:
        assert header.size <= len(data)
        assert len(header.source) == len(header.destination) == (4 if header.version == 4 else 16)
        assert packets.flow(data, header)
        packets.may_not_be_cut(data, header)
        packets.mark_congestion(bytearray(data), header.version)


def test_a_flow_has_the_same_key_in_all_its_packets_and_others_have_another() -> None:
    def key(data: bytes) -> bytes:
        header = packets.parse(data)
        assert header is not None
        return packets.flow(data, header)

    assert key(tcp4(b"a")) == key(tcp4(b"bb"))
    others = [tcp4(port=1), udp4(), tcp4(destination="10.9.0.3"), tcp4(source="10.9.0.9"), udp6()]
    assert len({key(data) for data in [tcp4(), *others]}) == 6


def test_fragments_of_a_packet_stay_in_one_flow_whatever_their_first_bytes() -> None:
    pieces = [v4("1.2.3.4", "5.6.7.8", 17, bytes([n]) * 16, fragment=0x2000 | n) for n in (0, 2, 4)]
    keys = set()
    for piece in pieces:
        header = packets.parse(piece)
        assert header is not None
        keys.add(packets.flow(piece, header))
    assert len(keys) == 1


@given(st.binary(min_size=1, max_size=300))
@example(b"\xff\xff")
@example(b"\xff\xff\x00\x00")
def test_checksums_are_those_of_rfc_1071(data: bytes) -> None:
    if any(data):
        assert packets.checksum(data) == plain_checksum(data)


@given(st.integers(0, 255), st.binary(max_size=10))
def test_a_mark_of_congestion_leaves_the_header_of_ipv4_right(tos: int, body: bytes) -> None:
    packet = bytearray(v4("10.1.2.3", "192.0.2.9", 6, tcp(body), tos=tos))
    before = bytes(packet)
    if tos & 3:
        assert packets.mark_congestion(packet, 4)
        assert packet[1] == tos | 3
        assert plain_checksum(bytes(packet[:20])) == 0
        assert packet[12:] == before[12:]
    else:
        assert not packets.mark_congestion(packet, 4)
        assert packet == before


@given(st.integers(0, 255))
def test_and_of_ipv6_touches_nothing_but_its_traffic_class(traffic: int) -> None:
    packet = bytearray(v6("::1", "::2", 6, tcp(b"x"), traffic=traffic))
    before = bytes(packet)
    assert packets.mark_congestion(packet, 6) is bool(traffic & 3)
    expected = traffic | 3 if traffic & 3 else traffic
    (word,) = struct.unpack_from(">I", packet)
    assert word == 6 << 28 | expected << 20
    assert packet[4:] == before[4:]


def test_who_may_not_be_cut() -> None:
    for data, expected in [
        (tcp4(), True),
        (v4("1.1.1.1", "2.2.2.2", 17, udp(b""), fragment=0), False),
        (udp6(), True),
    ]:
        header = packets.parse(data)
        assert header is not None
        assert packets.may_not_be_cut(data, header) is expected
