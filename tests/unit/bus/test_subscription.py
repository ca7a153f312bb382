"""What a subscription keeps for a reader that is slow or away, and what it tells of the rest."""

import asyncio

import pytest

from bus.errors import NotAuthorised, Overflow
from bus.subscription import MAX_GAPS, MAX_KEPT_BYTES, Share, Subscription

MIB = bytes(1 << 20)
FITS = MAX_KEPT_BYTES // (1 << 20) - 1  # of these


def subscription(policy: str = "drop_old", share: Share | None = None) -> Subscription:
    return Subscription("topic.>", lambda: None, policy=policy, share=share)


def put(kept: Subscription, *bodies: bytes) -> None:
    kept.put("topic.a", "sender", list(bodies), sum(map(len, bodies)))


async def read_all(kept: Subscription, into: list[bytes]) -> None:
    async for message in kept:
        into.append(message.body)  # noqa: PERF401 - what came before an error counts


def test_a_reader_that_never_reads_keeps_a_bounded_number_of_empty_messages() -> None:
    kept = subscription()
    sent = 400_000
    for _ in range(sent):
        kept.put("topic.a", "sender", [b""], 0)
    assert kept.lost > 0
    assert (sent - kept.lost) * 400 <= MAX_KEPT_BYTES


async def test_reading_goes_on_where_it_stopped() -> None:
    kept = subscription()
    put(kept, b"1", b"2", b"3")
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


# Policies.


async def test_drop_old_loses_the_oldest_and_says_which() -> None:
    kept = subscription()
    for number in range(FITS + 5):
        put(kept, b"%d" % number, MIB)
    assert kept.lost == 10
    assert kept.gaps == [(1, 10)]
    assert (await anext(kept)).body == b"5"


async def test_drop_new_loses_the_newest_and_says_which() -> None:
    kept = subscription("drop_new")
    for number in range(FITS + 5):
        put(kept, b"%d" % number, MIB)
    assert kept.lost == 10
    assert kept.gaps == [(2 * FITS + 1, 10)]
    assert (await anext(kept)).body == b"0"
    put(kept, b"after")  # there is room again
    await kept.close()
    assert [m.body async for m in kept][-1] == b"after"


async def test_disconnect_ends_the_subscription_after_what_it_has() -> None:
    dropped: list[bool] = []
    kept = Subscription("topic.>", lambda: dropped.append(True), policy="disconnect")
    for _ in range(FITS + 5):
        put(kept, MIB)
    assert dropped == [True]
    read: list[bytes] = []
    with pytest.raises(Overflow, match=r"the reader of topic\.> is too slow"):
        await read_all(kept, read)
    assert len(read) == FITS


async def test_an_error_ends_it_after_what_it_has() -> None:
    kept = subscription()
    put(kept, b"1")
    kept.end(NotAuthorised("not allowed any more"))
    put(kept, b"2")
    read: list[bytes] = []
    with pytest.raises(NotAuthorised):
        await read_all(kept, read)
    assert read == [b"1"]


# Gaps.


def test_gaps_are_counted_over_all_that_was_for_it() -> None:
    kept = subscription()
    put(kept, b"1", b"2")
    kept.skipped(3, 3)
    put(kept, b"6")
    kept.skipped(1, 7)
    kept.skipped(2, 8)
    assert kept.lost == 6
    assert kept.gaps == [(3, 3), (7, 3)]


def test_gaps_go_on_counting_over_connections() -> None:
    kept = subscription()
    put(kept, b"1", b"2")
    kept.restarted()
    kept.skipped(4, 1)
    put(kept, b"7")
    kept.skipped(1)  # a broker that does not say which
    assert kept.gaps == [(3, 4), (8, 1)]


def test_gaps_are_bounded() -> None:
    kept = subscription()
    for _ in range(2 * MAX_GAPS):
        put(kept, b"")
        kept.skipped(1)
    assert kept.lost == 2 * MAX_GAPS
    assert len(kept.gaps) == MAX_GAPS
    assert kept.gaps[-1] == (4 * MAX_GAPS, 1)


# Queue groups.


class Member:
    def __init__(self, window: int, policy: str = "drop_old") -> None:
        self.granted: list[int] = []
        self.kept = subscription(policy, Share(window, self.granted.append))

    async def reads(self, n: int) -> None:
        for _ in range(n):
            await anext(self.kept)


async def test_taking_the_next_gives_back_the_last_half_a_window_at_a_time() -> None:
    member = Member(window=4)
    for _ in range(4):
        put(member.kept, b"")
    await member.reads(1)
    assert member.granted == []
    await member.reads(1)
    assert member.granted == []
    await member.reads(1)
    assert member.granted == [2]


async def test_a_reader_that_waits_has_given_back_all() -> None:
    member = Member(window=64)
    put(member.kept, b"")
    await member.reads(1)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(member.reads(1))
        await asyncio.sleep(0)
        assert member.granted == [1]
        put(member.kept, b"")
        await reader


async def test_a_message_that_is_being_worked_on_is_not_given_back() -> None:
    member = Member(window=1)
    put(member.kept, b"")
    async for _ in member.kept:
        await asyncio.sleep(0)
        assert member.granted == []
        break
    assert member.granted == []


async def test_messages_of_an_earlier_connection_are_not_given_back() -> None:
    member = Member(window=2)
    for _ in range(2):
        put(member.kept, b"old")
    await member.reads(1)
    member.kept.restarted()
    for _ in range(2):
        put(member.kept, b"new")
    await member.reads(2)  # the second old one, and the first new one
    assert member.granted == []
    await member.reads(1)
    assert member.granted == [1]


async def test_what_is_dropped_here_is_given_back() -> None:
    for policy in ("drop_old", "drop_new"):
        member = Member(window=2 * FITS, policy=policy)
        for _ in range(2 * FITS):
            put(member.kept, MIB)
        assert sum(member.granted) == FITS
