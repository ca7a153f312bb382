"""Options and figures of TCP sockets that carry links (Linux)."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from nodes.links.estimate import TcpInfo

NOTSENT_LOWAT: Final = 32 * 1024  # bytes; what waits in the kernel can no longer be overtaken
USER_TIMEOUT_MS: Final = 5000  # unacknowledged for so long: the kernel gives the connection up
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", 18)
# struct tcp_info of linux/tcp.h: 8 bytes, 24 u32, 4 u64, 6 u32, u64 delivery rate (Linux 4.9).
_INFO: Final = struct.Struct("=6x2B24I4Q6IQ")
_RETRANS, _RTT, _RTTVAR = 25, 17, 18  # places in the unpacked tuple
_ACKED, _NOTSENT, _RATE = 28, 32, 36


def prepare(sock: socket.socket, *, lowat: int = NOTSENT_LOWAT) -> None:
    """Set what a link needs; the rest (congestion control, buffers) is as the system has it."""
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (_TCP_NOTSENT_LOWAT, lowat),
        (_TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
    ):
        with contextlib.suppress(OSError):  # not a TCP socket, or a kernel without it
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def info(sock: socket.socket) -> TcpInfo | None:
    """The kernel's figures; None when it has none for this socket."""
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:
        return None
    return parse_info(raw)


def parse_info(raw: bytes) -> TcpInfo | None:
    if len(raw) < _INFO.size:
        return None
    fields = _INFO.unpack_from(raw)
    return TcpInfo(
        rtt=fields[_RTT] / 1e6,
        rttvar=fields[_RTTVAR] / 1e6,
        retransmits=fields[_RETRANS],
        acked=fields[_ACKED],
        unsent=fields[_NOTSENT],
        rate=fields[_RATE],
        app_limited=bool(fields[1] & 1),
    )
