"""IP packets put together by hand, with checksums that are right."""

import ipaddress
import struct

from nodes.tunnel.packets import TCP, UDP, checksum


def v4(
    source: str,
    destination: str,
    protocol: int,
    body: bytes,
    *,
    tos: int = 0,
    fragment: int = 0x4000,
    options: bytes = b"",
) -> bytes:
    """`fragment`: flags and offset; don't fragment, if nothing is said."""
    size = 20 + len(options)
    ends = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    head = struct.pack(
        ">BBHHHBBH", 0x40 | size // 4, tos, size + len(body), 1, fragment, 64, protocol, 0
    )
    head += ends + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


def v6(source: str, destination: str, protocol: int, body: bytes, *, traffic: int = 0) -> bytes:
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    return struct.pack(">IHBB", 6 << 28 | traffic << 20, len(body), protocol, 64) + ends + body


def tcp(payload: bytes, source: int = 40000, destination: int = 80, options: bytes = b"") -> bytes:
    """A segment whose checksum is left to the kernel."""
    size = 20 + len(options)
    return (
        struct.pack(">HHIIBBHHH", source, destination, 1, 1, size // 4 << 4, 0x10, 512, 0, 0)
        + options
        + payload
    )


def udp(payload: bytes, source: int = 40000, destination: int = 53) -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


def tcp4(
    payload: bytes = b"", source: str = "10.9.0.1", destination: str = "10.9.0.2", port: int = 40000
) -> bytes:
    return v4(source, destination, TCP, tcp(payload, port))


def udp4(
    payload: bytes = b"", source: str = "10.9.0.1", destination: str = "10.9.0.2", port: int = 40000
) -> bytes:
    return v4(source, destination, UDP, udp(payload, port))


def udp6(payload: bytes = b"", source: str = "fd09::1", destination: str = "fd09::2") -> bytes:
    return v6(source, destination, UDP, udp(payload))
