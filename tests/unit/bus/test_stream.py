"""More than one reply: kept for the reader within a bound, and sent within a window."""

import asyncio

import pytest

from bus.errors import DeadlineExceeded, Overflow
from bus.stream import MAX_KEPT_BYTES, Replies, Window
from bus.waiting import Part, Settled


async def test_replies_come_in_order_and_end() -> None:
    replies = Replies()
    replies.put(Part(1, "a", b"1"))
    replies.put(Part(1, "a", b"2"))
    replies.end(Settled(1))
    replies.put(Part(1, "a", b"late"))
    bodies = []
    while (part := await replies.next()) is not None:
        bodies.append(part.body)
    assert bodies == [b"1", b"2"]
    assert await replies.next() is None


async def test_a_body_with_the_end_is_the_last_reply() -> None:
    replies = Replies()
    replies.end(Settled(1, b"whole"))
    last = await replies.next()
    assert last is not None
    assert last.body == b"whole"
    assert await replies.next() is None


async def test_an_error_comes_after_what_came_before_it() -> None:
    replies = Replies()
    replies.put(Part(1, "a", b"1"))
    replies.end(Settled(1, error=DeadlineExceeded("late")))
    assert await replies.next() is not None
    with pytest.raises(DeadlineExceeded):
        await replies.next()


async def test_a_reader_that_waits_is_woken() -> None:
    replies = Replies()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(replies.next())
        await asyncio.sleep(0)
        replies.put(Part(1, "a", b"1"))
    part = reader.result()
    assert part is not None
    assert part.body == b"1"


async def test_replies_that_nobody_reads_are_bounded() -> None:
    replies = Replies()
    body = bytes(1 << 20)
    for _ in range(2 * MAX_KEPT_BYTES // len(body)):
        replies.put(Part(1, "a", body))
    kept = 0

    async def read() -> None:
        nonlocal kept
        while await replies.next():
            kept += 1

    with pytest.raises(Overflow):
        await read()
    assert kept <= MAX_KEPT_BYTES // len(body) + 1


async def test_a_window_lets_pass_what_was_granted() -> None:
    window, sent = Window(2), 0

    async def sends() -> None:
        nonlocal sent
        while True:
            await window.take()
            sent += 1

    async with asyncio.TaskGroup() as group:
        sender = group.create_task(sends())
        await asyncio.sleep(0.01)
        assert sent == 2
        window.grant(3)
        await asyncio.sleep(0.01)
        assert sent == 5
        sender.cancel()
