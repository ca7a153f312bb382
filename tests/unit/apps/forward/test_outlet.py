"""The far socket of a conversation in datagrams: it waits for its address and outlives ICMP's news."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from apps.forward import datagrams
from apps.forward.datagrams import MAX_HELD, Outlet
from apps.forward.places import Place


@contextlib.asynccontextmanager
async def running(outlet: Outlet) -> AsyncIterator[asyncio.Queue[bytes]]:
    """Its answers."""
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    task = asyncio.create_task(outlet.run(answers.put))
    try:
        yield answers
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_is_said_before_the_address_is_known_is_sent_and_no_more_than_some() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(10)
        outlet = Outlet(Place(*target.getsockname()))
        for number in range(2 * MAX_HELD):
            outlet.send(b"%d" % number)
        async with running(outlet) as answers:
            _, address = await asyncio.to_thread(target.recvfrom, 100)
            target.sendto(b"yes", address)
            assert await asyncio.wait_for(answers.get(), 10) == b"yes"
            told = [await asyncio.to_thread(target.recv, 100) for _ in range(MAX_HELD - 1)]
            assert told[-1] == b"%d" % (MAX_HELD - 1)


async def test_an_error_that_is_no_refusal_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Firewalls answer with "administratively prohibited", which is EHOSTUNREACH at the socket."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)

    async def connected(_place: Place) -> socket.socket:
        return near

    failures = [OSError(113, "no route to host"), OSError(1, "not permitted")]
    loop = asyncio.get_running_loop()
    really = loop.sock_recv

    async def recv(sock: socket.socket, size: int) -> bytes:
        if sock is near and failures:
            raise failures.pop()
        return await really(sock, size)

    monkeypatch.setattr(datagrams, "_connected", connected)
    monkeypatch.setattr(loop, "sock_recv", recv)
    monkeypatch.setattr(datagrams, "PAUSE", 0.001)
    with far:
        far.send(b"yes")
        async with running(Outlet(Place("target", 1))) as answers:
            assert await asyncio.wait_for(answers.get(), 10) == b"yes"
            assert not failures


async def test_an_address_that_is_not_found_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(10)
        really, missing = datagrams._connected, [True, True]

        async def connected(place: Place) -> socket.socket:
            if missing:
                missing.pop()
                raise socket.gaierror(-2, "Name or service not known")
            return await really(place)

        monkeypatch.setattr(datagrams, "_connected", connected)
        monkeypatch.setattr(datagrams, "AGAIN", 0.001)
        outlet = Outlet(Place(*target.getsockname()))
        async with running(outlet):
            while missing:
                await asyncio.sleep(0.001)
            outlet.send(b"now")
            assert await asyncio.to_thread(target.recv, 100) == b"now"
