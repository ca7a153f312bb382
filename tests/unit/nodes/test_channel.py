"""The connection between an app and its node: descriptors go with their message or are closed."""

import asyncio
import os
import socket

from nodes import local
from nodes.channel import Channel
from nodes.local import LocalProtocolError


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class End:
    """One end, and what it heard."""

    def __init__(self, sock: socket.socket, *, takes: bool = True, gather: bool = False) -> None:
        self.messages: list[bytes] = []
        self.taken: list[int] = []
        self.reasons: list[str] = []
        self.lost = asyncio.Event()
        self._takes = takes
        self.channel = Channel(sock, self._receive, self._ended, max_queue=1 << 30, gather=gather)

    def _receive(self, body: bytes) -> None:
        self.messages.append(body)
        if self._takes:
            self.taken.append(self.channel.take_descriptor())

    def _ended(self, reason: str) -> None:
        self.reasons.append(reason)
        self.lost.set()


def message() -> bytes:
    return local.encode(local.Attach(1))


def spare() -> int:
    return os.open("/dev/null", os.O_RDONLY)


async def heard(end: End, count: int) -> None:
    async with asyncio.timeout(20):
        while len(end.messages) < count:
            await asyncio.sleep(0.001)


async def test_each_descriptor_goes_with_its_message_and_none_is_left() -> None:
    before = descriptors()
    ours, theirs = socket.socketpair()
    near, far = End(ours), End(theirs)
    for _ in range(100):
        near.channel.send(message(), spare())
        await near.channel.drain()
    await heard(far, 100)
    for taken in far.taken:
        os.close(taken)
    near.channel.close()
    far.channel.close()
    assert descriptors() == before


async def test_descriptors_that_no_message_claims_are_closed() -> None:
    ours, theirs = socket.socketpair()
    near, far = End(ours), End(theirs, takes=False)
    before = descriptors()
    for _ in range(100):
        near.channel.send(message(), spare())
        await near.channel.drain()
    await heard(far, 100)
    assert descriptors() == before
    near.channel.close()
    far.channel.close()


async def test_what_waits_for_an_end_that_hangs_up_is_closed_with_it() -> None:
    before = descriptors()
    ours, theirs = socket.socketpair()
    near = End(ours)
    while not near.channel.queued:
        near.channel.send(message() * 1000, spare())
    for _ in range(10):
        near.channel.send(message(), spare())
    asyncio.get_running_loop().remove_reader(ours)  # the hanging-up is noticed when it sends
    theirs.close()
    async with asyncio.timeout(20):
        await near.lost.wait()
    assert descriptors() == before
    assert len(near.reasons) == 1


async def test_a_message_without_the_descriptor_it_needs_ends_the_connection() -> None:
    ours, theirs = socket.socketpair()
    near, far = End(ours), End(theirs)
    near.channel.send(message())
    async with asyncio.timeout(20):
        await far.lost.wait()
        await near.lost.wait()
    assert far.reasons == [str(LocalProtocolError("message without the descriptor it needs"))]


async def test_what_is_said_in_one_turn_leaves_as_one_and_in_order() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(20)
    near = End(ours, gather=True)
    said = [local.encode(local.Reset(number)) for number in range(100)]
    for each in said:
        near.channel.send(each)
    await asyncio.sleep(0)
    assert theirs.recv(1 << 20) == b"".join(said)
    near.channel.send(said[0])
    await asyncio.sleep(0)
    assert theirs.recv(1 << 20) == said[0]
    near.channel.close()
    theirs.close()


async def test_what_was_said_before_it_is_closed_is_heard() -> None:
    ours, theirs = socket.socketpair()
    near, far = End(ours, gather=True), End(theirs, takes=False)
    near.channel.send(message())
    near.channel.send(message())
    near.channel.close()
    await heard(far, 2)
    async with asyncio.timeout(20):
        await far.lost.wait()
    far.channel.close()


async def test_more_than_the_socket_takes_arrives_whole_and_in_order() -> None:
    ours, theirs = socket.socketpair()
    near, far = End(ours, gather=True), End(theirs, takes=False)
    said = [local.encode(local.Vouch(number, 1, b"x" * 1000)) for number in range(5000)]
    for number, each in enumerate(said):
        near.channel.send(each)
        if number % 700 == 0:
            await asyncio.sleep(0)
    await heard(far, len(said))
    assert far.messages == [each[4:] for each in said]
    assert near.channel.queued == 0
    near.channel.close()
    far.channel.close()
