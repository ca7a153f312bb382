"""Durable topics through the asyncio client, against the real broker and its disk."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bus import Bus, NotAuthorised, NoTopic, Pulled, Stored, StoreFull, signals
from bus.signals import ConsumerConfig, TopicConfig, pack
from tests.support.broker import Broker, running_broker
from tests.support.joined import joined


@asynccontextmanager
async def with_topic(broker: Broker, **options: Any) -> AsyncIterator[tuple[Bus, Bus]]:
    """An operator and an app; the topic `orders` takes in app.orders.*, the consumer `billing` works."""
    async with joined(broker, "admin") as admin, joined(broker, "alice") as alice:
        topic = TopicConfig("orders", ["app.orders.*"], **options)
        await admin.request(signals.TOPIC_PUT, pack(topic))
        consumer = ConsumerConfig("orders", "billing", ack_wait=1.0, max_deliver=3)
        await alice.request(signals.CONSUMER_PUT, pack(consumer))
        yield admin, alice


async def pull_all(bus: Bus, n: int) -> list[Pulled]:
    pulled: list[Pulled] = []
    async with asyncio.timeout(10):
        while len(pulled) < n:
            pulled += await bus.pull("orders", "billing", n=n - len(pulled), wait=5)
    return pulled


async def test_what_is_stored_is_pulled_and_settled() -> None:
    with running_broker(admin="admin", alice="app") as broker:
        async with with_topic(broker) as (_, alice):
            before = time.time()
            assert await alice.store("app.orders.new", b"1") == Stored(1)
            await alice.publish("app.orders.new", b"2")  # is stored as well, and nobody is told
            [first, second] = await pull_all(alice, 2)
            assert (first.seq, first.subject, first.sender, first.body, first.deliveries) == (
                1, "app.orders.new", alice.key, b"1", 1,
            )  # fmt: skip
            assert (first.topic, first.consumer) == ("orders", "billing")
            assert before - 1 <= first.time <= time.time() + 1
            await first.ack()
            await first.ack()  # again changes nothing
            await second.nak()
            [again] = await pull_all(alice, 1)
            assert (again.seq, again.deliveries) == (2, 2)
            await again.wip()
            await alice.settle([again])
            assert await alice.pull("orders", "billing") == []


async def test_a_record_that_nobody_settles_comes_again_and_ends_as_a_dead_letter() -> None:
    with running_broker(admin="admin", alice="app") as broker:
        async with with_topic(broker) as (admin, alice):
            dead = await admin.subscribe("dead.orders")
            await alice.store("app.orders.new", b"poison")
            for delivery in (1, 2, 3):
                [record] = await pull_all(alice, 1)
                assert record.deliveries == delivery
            assert (await asyncio.wait_for(anext(dead), 10)).body == b"poison"


async def test_a_message_id_is_stored_once_over_restarts_of_the_broker() -> None:
    with running_broker(admin="admin", alice="app") as broker:
        async with with_topic(broker) as (_, alice):
            assert await alice.store("app.orders.new", b"1", message_id="a") == Stored(1)
            assert await alice.store("app.orders.new", b"1", message_id="a") == Stored(
                1, duplicate=True
            )
            broker.kill()
            storing = asyncio.create_task(
                alice.store("app.orders.new", b"1", message_id="a", timeout=20)
            )
            broker.start()
            assert await storing == Stored(1, duplicate=True)
            assert await alice.store("app.orders.new", b"2", message_id="b") == Stored(2)


async def test_a_topic_is_read_from_a_sequence_a_time_or_the_last() -> None:
    with running_broker(admin="admin", alice="app") as broker:
        async with with_topic(broker) as (_, alice):
            await asyncio.gather(*(alice.store("app.orders.x", b"%d" % n) for n in range(10)))
            page = await alice.read("orders", n=4)
            assert ([r.seq for r in page.records], page.next, page.left) == ([1, 2, 3, 4], 5, 6)
            page = await alice.read("orders", seq=page.next, n=256)
            assert ([r.seq for r in page.records], page.next, page.left) == (
                [5, 6, 7, 8, 9, 10], 11, 0,
            )  # fmt: skip
            assert [r.seq for r in (await alice.read("orders", last=2, n=9)).records] == [9, 10]
            at = page.records[0].time
            since = await alice.read("orders", time=at, n=256)
            assert [r.seq for r in since.records if r.time < at - 0.002] == []
            assert since.records[-1].seq == 10
            waiting = asyncio.create_task(alice.read("orders", seq=11, wait=10))
            await asyncio.sleep(0.1)
            await alice.store("app.orders.x", b"new")
            assert [r.body for r in (await waiting).records] == [b"new"]


async def test_what_goes_wrong_with_a_topic_is_told_by_kind() -> None:
    with running_broker(admin="admin", alice="app", eve="observer") as broker:
        async with (
            with_topic(broker, max_messages=2, full="reject") as (_, alice),
            joined(broker, "eve") as eve,
        ):
            with pytest.raises(NoTopic, match=r"app\.other"):
                await alice.store("app.other", b"")
            with pytest.raises(NoTopic):
                await alice.read("nothing")
            with pytest.raises(NoTopic):
                await alice.pull("orders", "nobody")
            with pytest.raises(NotAuthorised):
                await eve.store("app.orders.x", b"")
            for _ in range(2):
                await alice.store("app.orders.x", b"")
            with pytest.raises(StoreFull):
                await alice.store("app.orders.x", b"")


async def test_records_of_a_pull_that_was_given_up_are_there_for_the_next() -> None:
    with running_broker(admin="admin", alice="app", bob="app") as broker:
        async with with_topic(broker) as (_, alice), joined(broker, "bob") as bob:
            waiting = asyncio.create_task(bob.pull("orders", "billing", wait=30))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await alice.store("app.orders.x", b"1")
            [record] = await pull_all(alice, 1)
            assert record.body == b"1"
            await record.ack()


async def test_many_stores_at_once_are_each_told_their_own_sequence() -> None:
    with running_broker(admin="admin", alice="app") as broker:
        async with with_topic(broker) as (_, alice):
            stored = await asyncio.gather(
                *(alice.store("app.orders.x", b"%d" % n, timeout=20) for n in range(1000))
            )
            assert [s.seq for s in stored] == list(range(1, 1001))
            got: dict[int, bytes] = {}
            while len(got) < 1000:
                for record in (await alice.read("orders", seq=len(got) + 1, n=256)).records:
                    got[record.seq] = record.body
            assert got == {n + 1: b"%d" % n for n in range(1000)}
