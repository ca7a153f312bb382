"""Strangers at the data port of a node, and bytes thrown into a link."""

import asyncio
import contextlib
import os
import socket

import pytest

from nodes import wire
from nodes.links import entrance, heads
from nodes.links.heads import LineKeys, Sealer
from nodes.wire import FrameType
from tests.support.linked import Node, data, linked, node, until


async def ended(sock: socket.socket) -> None:
    """Wait until the other side has closed."""
    loop = asyncio.get_running_loop()
    sock.settimeout(0)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(sock, 4096):
                pass
    sock.close()


async def call(door: tuple[str, int], said: bytes = b"") -> socket.socket:
    sock = socket.create_connection(door)
    sock.settimeout(0)
    if said:
        await asyncio.get_running_loop().sock_sendall(sock, said)
    return sock


async def still_works(a: Node, b: Node) -> None:
    heard = len(b.heard)
    a.link.send(data(1), b"alive")
    await until(lambda: len(b.heard) > heard)
    assert a.down == b.down == []


FIRST = heads.PREAMBLE.pack(heads.MAGIC, bytes(16), 0) + bytes(36)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "data_nonsense"),
        (os.urandom(4000), "data_nonsense"),
        (b"VSM1" + FIRST[4:], "data_nonsense"),
        (FIRST, "data_unproved"),
        (heads.MAGIC + os.urandom(200), "data_unproved"),
    ],
    ids=["http", "random", "version-1", "no-such-link", "random-after-magic"],
)
async def test_a_stranger_at_the_data_port_is_hung_up_on(said: bytes, why: str) -> None:
    async with linked() as (a, b):
        await ended(await call(b.door, said))
        assert b.transport.counters[why] == 1
        await still_works(a, b)


async def test_whoever_knows_the_id_but_not_the_keys_gets_nowhere() -> None:
    with node() as a, node() as b:
        dialling = asyncio.ensure_future(  # noqa: TID251 - it is met half-way
            a.transport.dial(b.endpoint, b.pair.public)
        )
        await until(lambda: b.transport._links)
        (link,) = b.transport._links.values()
        keys = link._keys
        assert keys is not None
        forged = LineKeys(a.pair.public, b.pair.public, (bytes(32), bytes(32)))
        proof = Sealer(forged.from_dialler(0)).seal(wire.head(FrameType.ALIVE), 0)
        preamble = heads.PREAMBLE.pack(heads.MAGIC, keys.id, 0)
        await ended(await call(b.door, preamble + proof))
        await dialling
        await until(lambda: b.links)
        await still_works(a, b)


async def test_a_first_message_that_is_played_again_is_worth_nothing() -> None:
    async with linked() as (a, b):
        keys = b.link._keys
        assert keys is not None
        for number in (0, 3, 4, 2**32 - 1):
            again = heads.first_message(keys, number, Sealer(keys.from_dialler(number)))
            await ended(await call(b.door, again))
        assert b.transport.counters["data_unproved"] == 4
        await still_works(a, b)


async def test_bytes_injected_into_a_data_connection_end_the_link_and_change_nothing() -> None:
    async with linked() as (a, b):
        a.link.send(data(1), b"good")
        await until(lambda: b.heard)
        a.link._lines[0].sock.send(os.urandom(100))
        await until(lambda: b.down)
        assert len(b.heard) == 1


async def test_a_caller_that_says_too_little_is_hung_up_on_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entrance, "PATIENCE", 0.05)
    async with linked() as (a, b):
        for said in (b"", b"V", FIRST[:-1]):
            await ended(await call(b.door, said))
        assert b.transport.counters["data_late"] == 3
        await still_works(a, b)


async def test_a_flood_of_connections_keeps_only_few_and_no_neighbour_out() -> None:
    with node() as a, node() as b:
        flood = []
        for _ in range(entrance.MAX_OF_ADDRESS * 3):
            flood.append(await call(b.door))
            await asyncio.sleep(0)
        await until(lambda: b.transport.counters["data_flood"] >= entrance.MAX_OF_ADDRESS)
        assert b.transport.entrance is not None
        assert len(b.transport.entrance._strangers) <= entrance.MAX_OF_ADDRESS
        await a.transport.dial(b.endpoint, b.pair.public)
        await until(lambda: b.links)
        await still_works(a, b)
        for sock in flood:
            sock.close()
