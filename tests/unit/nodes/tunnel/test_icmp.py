"""The answer to what is too big."""

import ipaddress
import struct

import pytest

from nodes.tunnel import icmp, packets
from tests.support.ip_packets import tcp4, udp4, udp6, v4, v6


def answer(packet: bytes, mtu: int = 1300) -> bytes | None:
    header = packets.parse(packet)
    assert header is not None
    return icmp.too_big(memoryview(packet), header, mtu)


def test_ipv4_hears_that_it_would_have_to_be_cut() -> None:
    asked = tcp4(bytes(1400))
    said = answer(asked)
    assert said is not None
    header = packets.parse(said)
    assert header is not None
    assert header.protocol == packets.ICMP
    assert header.source == ipaddress.ip_address("10.9.0.2").packed
    assert header.destination == ipaddress.ip_address("10.9.0.1").packed
    assert packets.checksum(said[:20]) == 0
    assert packets.checksum(said[20:]) == 0
    kind, code, _, _, mtu = struct.unpack_from(">BBHHH", said, 20)
    assert (kind, code, mtu) == (3, 4, 1300)
    assert said[28:] == asked[:548]


def test_ipv6_hears_that_it_is_too_big() -> None:
    asked = udp6(bytes(1400))
    said = answer(asked)
    assert said is not None
    header = packets.parse(said)
    assert header is not None
    assert header.protocol == packets.ICMP6
    assert len(said) <= 1280
    pseudo = said[8:40] + struct.pack(">II", len(said) - 40, packets.ICMP6)
    assert packets.checksum(pseudo + said[40:]) == 0
    kind, code, _, mtu = struct.unpack_from(">BBHI", said, 40)
    assert (kind, code, mtu) == (2, 0, 1300)
    assert said[48:] == asked[:1232]


def test_ipv6_never_hears_of_less_than_every_link_carries() -> None:
    said = answer(udp6(bytes(1400)), 1000)
    assert said is not None
    assert struct.unpack_from(">I", said, 44) == (1280,)


@pytest.mark.parametrize(
    "packet",
    [
        v4("1.1.1.1", "2.2.2.2", 1, b"\3\4" + bytes(1400)),
        v6("::1", "::2", 58, b"\2\0" + bytes(1400)),
        v4("1.1.1.1", "2.2.2.2", 17, bytes(1400), fragment=0x2000),
        v4("1.1.1.1", "2.2.2.2", 1, b""),
    ],
)
def test_errors_and_fragments_are_not_answered(packet: bytes) -> None:
    assert answer(packet) is None


def test_an_echo_is_answered_as_anything_else() -> None:
    assert answer(v4("1.1.1.1", "2.2.2.2", 1, b"\x08\0" + bytes(1400))) is not None
    assert answer(v6("::1", "::2", 58, b"\x80\0" + bytes(1400))) is not None
    assert answer(udp4(bytes(1400))) is not None
