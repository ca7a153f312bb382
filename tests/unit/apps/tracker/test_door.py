"""The tracker's TCP address: who comes there holds up nobody else."""

import asyncio

from apps.tracker.door import Door
from nodes import listening

MANY = 3000


async def test_who_sends_many_lines_at_once_leaves_the_others_their_turn() -> None:
    order: list[bytes] = []

    def answer(line: bytes) -> bytes:
        order.append(line)
        return b"yes\n"

    listener = listening.tcp(("127.0.0.1", 0), 8)
    serving = asyncio.create_task(Door(answer).serve(listener))
    try:
        visitors = [await asyncio.open_connection(*listener.getsockname()) for _ in range(2)]
        (greedy, talks), (modest, asks) = visitors
        for reader, writer in visitors:  # both are inside
            writer.write(b"hello\n")
            assert await reader.readline() == b"yes\n"
        talks.write(b"m\n" * MANY)
        asks.write(b"one\n")
        assert await asyncio.wait_for(modest.readline(), 20) == b"yes\n"
        assert order.count(b"m\n") < MANY
        assert await asyncio.wait_for(greedy.readexactly(4 * MANY), 20) == b"yes\n" * MANY
        for _, writer in visitors:
            writer.close()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
