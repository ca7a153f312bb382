"""One question to one name server. It takes as long as it takes: the asker has a time limit.

Each question has a socket and a source port of its own; what does not answer it is not looked at.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, TypeVar

from apps.egress.replies import MAX_ANSWER, Unusable

MAX_STRAYS: Final = 64  # datagrams that answer nothing, before a server is given up

Server = tuple[str, int]  # address and port
T = TypeVar("T")


async def over_udp(server: Server, wire: bytes, read: Callable[[bytes], T | None]) -> T:
    """What `read` makes of the answer, None being no answer; raises Unusable, OSError."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(0)
        # Connected: the kernel drops what others send, and tells when nobody is there.
        sock.connect(_place(server, family))
        await loop.sock_sendall(sock, wire)
        for _ in range(MAX_STRAYS):
            said = read(await loop.sock_recv(sock, 65_535))
            if said is not None:
                return said
    raise Unusable("answers to other questions")


async def over_tcp(server: Server, wire: bytes, read: Callable[[bytes], T | None]) -> T:
    """As over_udp; an answer that is too large is not even received."""
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(wire).to_bytes(2) + wire)
        size = int.from_bytes(await reader.readexactly(2))
        if size > MAX_ANSWER:
            raise Unusable("an answer that is too large")
        said = read(await reader.readexactly(size))
    except asyncio.IncompleteReadError:
        said = None
    finally:
        writer.transport.abort()
    if said is None:
        raise Unusable("an answer to another question")
    return said


def _place(server: Server, family: int) -> tuple[str | int, ...]:
    host, port = server
    if family == socket.AF_INET:
        return server
    host, _, scope = host.partition("%")
    return host, port, 0, socket.if_nametoindex(scope) if scope else 0
