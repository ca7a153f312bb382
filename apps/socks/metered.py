"""A connection whose bytes are watched while they pass: that of a key with a rate or a volume.

Others hand their sockets to the node and are out of the path. Here this program moves the bytes, waits
when the key's rate is used up, and cuts the connection when its volume is: so a limit costs a little
speed, and only those who have one.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Final

from apps.egress.bucket import Bucket
from apps.egress.ledger import Account
from nodes.client import Incoming, NodeError, Stream

CHUNK: Final = 65_536  # bytes that are moved at a time, at most
LEAST_CHUNK: Final = 2048
PER_CHUNK: Final = 0.05  # seconds of the rate in one of them: so that many share it smoothly

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

Read = Callable[[int], Awaitable[bytes]]
Write = Callable[[bytes], Awaitable[None]]


class _UsedUp(Exception):
    """The key's volume."""


async def carry(incoming: Incoming, target: socket.socket, account: Account, idle: float) -> None:
    """Move bytes both ways until both have ended, one is reset, or the volume is used up."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    stream = Stream(ours, await incoming.attach(theirs, idle=idle))

    def came(size: int) -> None:
        account.spend(size, 0, time.monotonic())

    def went(size: int) -> None:
        account.spend(0, size, time.monotonic())

    async def read(size: int) -> bytes:
        return await loop.sock_recv(target, size)

    async def write(data: bytes) -> None:
        await loop.sock_sendall(target, data)

    try:
        async with asyncio.TaskGroup() as tasks:
            inward = _copy(read, stream.write, account, account.inward, came)
            outward = _copy(stream.read, write, account, account.outward, went)
            tasks.create_task(_then(inward, stream.write_eof))
            tasks.create_task(_then(outward, lambda: target.shutdown(socket.SHUT_WR)))
    except* (OSError, NodeError, _UsedUp):
        target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        await stream.reset()
    finally:
        await stream.aclose()


async def _copy(
    read: Read, write: Write, account: Account, bucket: Bucket, count: Callable[[int], None]
) -> None:
    chunk = min(CHUNK, max(LEAST_CHUNK, int(bucket.rate * PER_CHUNK))) if bucket.rate else CHUNK
    while data := await read(chunk):
        now = time.monotonic()
        if account.exhausted(now):
            raise _UsedUp
        count(len(data))
        pause = bucket.spend(len(data), now)
        if pause:
            await asyncio.sleep(pause)
        await write(data)


async def _then(work: Awaitable[None], end: Callable[[], object]) -> None:
    await work
    end()
