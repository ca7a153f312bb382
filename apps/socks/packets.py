"""Datagrams between the two halves of the SOCKS pair.

    u32 number of the association | the SOCKS5 address: u8 type, address, u16 port | data

Behind the number stands what RFC 1928 section 7 puts behind RSV and FRAG, so the near side neither
reads nor builds an address: it takes the first three bytes of its client's datagram off and puts the
number before it, and the other way round for answers. To the exit the address is where it is to be
sent, from the exit it is where it came from, and then never a name.
"""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from apps.socks.protocol import Kind

NUMBER: Final = struct.Struct(">I")
_PORT: Final = struct.Struct(">H")
_HEAD: Final = NUMBER.size + 1


class Packet(NamedTuple):
    """One datagram of an association: for, or from, a port of a host."""

    number: int
    host: str  # an address in its canonical text, or a name
    port: int
    data: bytes


def read_packet(message: bytes) -> Packet | None:
    """Read a datagram of the other half; None for one that is none."""
    if len(message) < _HEAD + 1:
        return None
    (number,) = NUMBER.unpack_from(message)
    kind = message[NUMBER.size]
    match kind:
        case Kind.IPV4:
            at, end = _HEAD, _HEAD + 4
        case Kind.IPV6:
            at, end = _HEAD, _HEAD + 16
        case Kind.DOMAIN:
            at = _HEAD + 1
            end = at + message[_HEAD]
        case _:
            return None
    if len(message) < end + _PORT.size:
        return None
    host = _host(kind, message[at:end])
    if host is None:
        return None
    (port,) = _PORT.unpack_from(message, end)
    return Packet(number, host, port, message[end + _PORT.size :])


def write_packet(packet: Packet) -> bytes:
    """Encode a datagram; raises ValueError for a host that is neither an address nor a name."""
    number, host, port, data = packet
    return b"".join((NUMBER.pack(number), _place(host), _PORT.pack(port), data))


def _host(kind: int, data: bytes) -> str | None:
    match kind:
        case Kind.IPV4:
            return str(IPv4Address(data))
        case Kind.IPV6:
            return str(IPv6Address(data))
        case _:
            printable = bool(data) and all(0x21 <= byte <= 0x7E for byte in data)
            return data.decode("ascii") if printable else None


def _place(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if not 1 <= len(name) <= 255:
            raise ValueError(f"{host!r} is no name") from None
        return bytes((Kind.DOMAIN, len(name))) + name
    return bytes((Kind.IPV4 if address.version == 4 else Kind.IPV6,)) + address.packed
