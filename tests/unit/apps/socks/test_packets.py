from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apps.socks.packets import Packet, read_packet, write_packet

# Behind the number: what a SOCKS5 client's datagram has behind RSV and FRAG.
TO_NAME = b"\3\x0bexample.com\0\x35"
TO_IPV4 = bytes.fromhex("01 c0000201 0035")
TO_IPV6 = bytes.fromhex("04 20010db8000000000000000000000001 0035")

names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
hosts = st.one_of(
    names.filter(lambda name: not _is_address(name)),
    st.ip_addresses().filter(lambda found: isinstance(found, IPv4Address)).map(str),
    st.ip_addresses(v=6).map(str),
)
packets = st.builds(
    Packet, st.integers(0, 2**32 - 1), hosts, st.integers(0, 65535), st.binary(max_size=100)
)


def _is_address(text: str) -> bool:
    for kind in (IPv4Address, IPv6Address):
        try:
            kind(text)
        except ValueError:
            continue
        return True
    return False


@pytest.mark.parametrize(
    ("place", "host"), [(TO_NAME, "example.com"), (TO_IPV4, "192.0.2.1"), (TO_IPV6, "2001:db8::1")]
)
def test_behind_the_number_stands_what_the_socks_client_wrote(place: bytes, host: str):
    message = b"\0\0\1\2" + place + b"question"
    assert read_packet(message) == Packet(258, host, 53, b"question")
    assert write_packet(Packet(258, host, 53, b"question")) == message


@given(packets)
def test_a_packet_comes_back(packet: Packet):
    assert read_packet(write_packet(packet)) == packet


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0\0\1",
        b"\0\0\0\1\1\x7f\0\0\1\0",  # half a port
        b"\0\0\0\1\3\0\0\x35",  # a name without a letter
        b"\0\0\0\1\3\3a b\0\x35",
        b"\0\0\0\1\3\xffabc\0\x35",
        b"\0\0\0\1\2\x7f\0\0\1\0\x35",
    ],
)
def test_what_is_no_packet_is_none(message: bytes):
    assert read_packet(message) is None


@given(st.binary(max_size=300))
@example(b"\0\0\0\1\3\1\xff\0\x35")
def test_garbage_is_read_without_an_error(message: bytes):
    packet = read_packet(message)
    assert packet is None or write_packet(packet)[:5] == message[:5]


@pytest.mark.parametrize("host", ["", "a" * 256, "m\xfcnchen"])
def test_a_host_that_cannot_be_written_is_an_error(host: str):
    with pytest.raises(ValueError):
        write_packet(Packet(1, host, 53, b""))
