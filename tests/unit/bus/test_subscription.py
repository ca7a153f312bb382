"""What a subscription keeps for a reader that is slow or away."""

import asyncio

from bus.subscription import MAX_KEPT_BYTES, Subscription


def subscription() -> Subscription:
    return Subscription("topic.>", lambda: None)


def test_a_reader_that_never_reads_keeps_a_bounded_number_of_empty_messages() -> None:
    kept = subscription()
    sent = 400_000
    for _ in range(sent):
        kept.put("topic.a", "sender", [b""], 0)
    assert kept.lost > 0
    assert (sent - kept.lost) * 400 <= MAX_KEPT_BYTES


async def test_reading_goes_on_where_it_stopped() -> None:
    kept = subscription()
    kept.put("topic.a", "sender", [b"1", b"2", b"3"], 3)
    kept.put("topic.b", "sender", [b"4"], 1)
    async for message in kept:
        assert message.body == b"1"
        break
    assert (await anext(kept)).body == b"2"
    await kept.close()
    assert [m.body async for m in kept] == [b"3", b"4"]


async def test_closing_ends_an_iteration_that_waits() -> None:
    kept = subscription()
    reader = asyncio.ensure_future(anext(kept, None))  # noqa: TID251 - awaited below
    await asyncio.sleep(0)
    await kept.close()
    assert await reader is None
