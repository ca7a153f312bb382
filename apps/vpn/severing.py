"""Ends connections of this machine whose own address is gone for good, so that programs need not wait. Linux.

The kernel never does so by itself: without its source address nothing of a connection leaves any more,
and its program waits for minutes. By sock_diag(7), as `ss -K` does it: the program sees ECONNABORTED at
once. Blocking; call it from a thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from apps.vpn.killswitch import Address

_NETLINK_SOCK_DIAG: Final = 4
_BY_FAMILY, _DESTROY, _ERROR, _DONE = 20, 21, 2, 3  # linux/sock_diag.h, linux/netlink.h
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_HEAD: Final = struct.Struct("=IHHII")  # nlmsghdr
_ASKED: Final = struct.Struct("=BBBBI")  # inet_diag_req_v2 before its socket
_ID: Final = struct.Struct("=HH16s16sI8s")  # inet_diag_sockid; ports and addresses in network order
_ID_AT: Final = 4  # in an inet_diag_msg
_ESTABLISHED: Final = 1 << 1
_STATES: Final = {  # include/net/tcp_states.h; neither listens nor has ended
    socket.IPPROTO_TCP: sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11)),
    socket.IPPROTO_UDP: _ESTABLISHED,  # connected
}
_LARGEST: Final = 1 << 17
TIMEOUT: Final = 5.0  # seconds for an answer of the kernel


def sever(gone: Collection[Address]) -> str:
    """End what has one of these as its own address; what was wrong, empty when all is well."""
    if not gone:
        return ""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asking:
            asking.settimeout(TIMEOUT)
            asking.bind((0, 0))
            for family in (socket.AF_INET, socket.AF_INET6):
                for protocol, states in _STATES.items():
                    for name in list(_found(asking, family, protocol, states)):
                        if _own(family, name) in gone:
                            _destroy(asking, family, protocol, name)
    except OSError as error:
        why = error.strerror or str(error)
        return f"the kernel does not end connections of the earlier address ({why}); they time out"
    return ""


def _found(asking: socket.socket, family: int, protocol: int, states: int) -> Iterator[bytes]:
    """The names that the kernel has for such sockets; raises OSError."""
    wanted = _ASKED.pack(family, protocol, 0, 0, states) + bytes(_ID.size)
    asking.send(_message(_BY_FAMILY, _REQUEST | _DUMP, wanted))
    while True:
        for kind, body in _messages(asking.recv(_LARGEST)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                _check(body)
            elif kind == _BY_FAMILY:
                yield body[_ID_AT : _ID_AT + _ID.size]


def _destroy(asking: socket.socket, family: int, protocol: int, name: bytes) -> None:
    wanted = _ASKED.pack(family, protocol, 0, 0, _STATES[protocol]) + name
    asking.send(_message(_DESTROY, _REQUEST | _ACK, wanted))
    for kind, body in _messages(asking.recv(_LARGEST)):
        if kind == _ERROR:
            _check(body, errno.ENOENT)  # it has ended meanwhile


def _check(body: bytes, *fine: int) -> None:
    (code,) = struct.unpack_from("=i", body)
    if code and -code not in fine:
        raise OSError(-code, errno.errorcode.get(-code, str(-code)))


def _own(family: int, name: bytes) -> Address:
    packed: bytes = _ID.unpack(name)[2]
    if family == socket.AF_INET:
        return ip_address(packed[:4])
    address = IPv6Address(packed)
    return address.ipv4_mapped or address  # of a socket for both families


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEAD.pack(_HEAD.size + len(body), kind, flags, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEAD.size <= len(data):
        size, kind, _, _, _ = _HEAD.unpack_from(data, at)
        yield kind, data[at + _HEAD.size : at + size]
        at += size + 3 & ~3
