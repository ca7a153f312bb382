"""What both halves of the SOCKS pair need: an exit code, and quiet logs."""

import asyncio
import errno
import logging
import os
import socket
import time
from typing import Any

log = logging.getLogger("socks")

# Exit code, besides 0, argparse's 2 and that of a port that is taken (nodes/listening.py).
NOT_PERMITTED = 4  # a file that must not be read, or that others can read


class Notes:
    """Log lines about what strangers do: at most one a second, and how many were left out."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._skipped = 0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            self._skipped += 1
            return
        more = f" (and {self._skipped} more lines)" if self._skipped else ""
        self._quiet_until, self._skipped = now + 1, 0
        log.info("%s%s", printable(text), more)


def printable(text: str) -> str:
    """Make text of remote peers fit for a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


async def receive_from(sock: socket.socket, size: int) -> tuple[bytes, Any]:
    """The next datagram and where it came from, on any event loop; raises OSError."""
    while True:
        try:
            return sock.recvfrom(size)
        except BlockingIOError:
            await _readable(sock)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _settle, came)
    try:
        await came
    finally:
        loop.remove_reader(sock)


async def connected(sock: socket.socket, place: tuple[str, int]) -> None:
    """Connect to an address; raises OSError.

    As the event loop does it, but for uvloop's thread, which looks the address up once more.
    """
    number = sock.connect_ex(place)
    if number == errno.EINPROGRESS:
        number = sock.connect_ex(place)  # a target on this machine has answered by now
    if number == errno.EALREADY:
        await _writable(sock)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _settle, came)
    try:
        await came
    finally:
        loop.remove_writer(sock)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
