"""Queue groups, credit, policies and gaps of the asyncio client, over real sockets."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from bus import Bus, LocalProtocolError, NotAuthorised, Overflow, Subscription, Unreachable, signals
from bus import subscription as subscriptions
from tests.support.broker import Broker, running_broker
from tests.support.joined import eventually, joined

# Reads until it is told the end, then tells what it got and what it lost.
READER = """
import asyncio, json, sys
from pathlib import Path
from bus import Address, connect, keystore
endpoint, key, file, policy = sys.argv[1:]
async def main():
    async with connect(Address(endpoint, key), keystore.load(Path(file)), name="reader") as bus:
        subscription = await bus.subscribe("topic.>", policy=policy)
        print("ready", flush=True)
        got = []
        async for message in subscription:
            if message.subject == "topic.end":
                break
            got.append(int(message.body[:8]))
        print(json.dumps({"got": got, "lost": subscription.lost, "gaps": subscription.gaps}))
asyncio.run(main())
"""


@contextmanager
def reader(broker: Broker, policy: str = "drop_old") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [
            sys.executable, "-P", "-c", READER, broker.address.endpoint, broker.address.key,
            str(broker.folder / "reader.key"), policy,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


async def session_of(bus: Bus, name: str) -> signals.SessionInfo:
    told = msgspec.msgpack.decode(await bus.request(signals.SESSIONS), type=signals.Sessions)
    [session] = [s for s in told.sessions if s.name == name]
    return session


async def read(subscription: Subscription, into: list[bytes], pause: float = 0.0) -> None:
    async for message in subscription:
        into.append(message.body)
        if pause:
            await asyncio.sleep(pause)


# Credit.


async def test_a_stopped_reader_costs_no_more_than_its_credit_and_is_told_what_it_lost() -> None:
    size, count = 512 << 10, 300  # more than the broker keeps for anybody, and libzmq by itself
    with running_broker(alice="operator", reader="app") as broker, reader(broker) as process:
        async with joined(broker, "alice") as alice:
            process.send_signal(signal.SIGSTOP)
            before = (await session_of(alice, "reader")).bytes_out
            for number in range(count):
                await alice.publish("topic.x", b"%08d" % number + bytes(size - 8))
            taken = (await session_of(alice, "reader")).bytes_out - before
            assert taken <= (16 << 20) + 2 * size
            process.send_signal(signal.SIGCONT)
            await alice.publish("topic.end")
            out, _ = await asyncio.to_thread(process.communicate, timeout=30)
        told = json.loads(out)
        missing = sorted(set(range(count)) - set(told["got"]))
        assert told["got"] == sorted(told["got"])
        assert missing
        assert told["lost"] == len(missing)
        gaps = [n for first, lost in told["gaps"] for n in range(first - 1, first - 1 + lost)]
        assert sorted(gaps) == missing


async def test_credit_goes_on_for_as_long_as_there_is_a_reader() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            subscription = await bob.subscribe("topic.x")
            body = bytes(256 << 10)

            async def publish() -> None:
                for _ in range(400):  # 100 MiB, six times the credit
                    await alice.publish("topic.x", body)

            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                group.create_task(publish())
                for _ in range(400):
                    await anext(subscription)
            assert subscription.lost == 0


# Queue groups.


async def test_each_message_goes_to_one_member_of_a_group_and_to_every_other_subscriber() -> None:
    with running_broker(alice="app", bob="app", carol="app") as broker:
        async with (
            joined(broker, "alice") as alice,
            joined(broker, "bob") as bob,
            joined(broker, "carol") as carol,
        ):
            members = [await bus.subscribe("topic.x", group="workers") for bus in (bob, carol)]
            other = await alice.subscribe("topic.x")
            got: tuple[list[bytes], list[bytes]] = ([], [])
            async with asyncio.TaskGroup() as group:
                readers = [
                    group.create_task(read(member, into))
                    for member, into in zip(members, got, strict=True)
                ]
                for number in range(1000):
                    await alice.publish("topic.x", b"%d" % number)
                await eventually(lambda: len(got[0]) + len(got[1]) == 1000)
                for task in readers:
                    task.cancel()
            assert sorted(got[0] + got[1], key=int) == [b"%d" % n for n in range(1000)]
            assert min(map(len, got)) > 300
            assert [(await anext(other)).body for _ in range(1000)][-1] == b"999"


async def test_a_slow_member_does_not_hold_up_a_fast_one() -> None:
    with running_broker(alice="app", bob="app", carol="app") as broker:
        async with (
            joined(broker, "alice") as alice,
            joined(broker, "bob") as bob,
            joined(broker, "carol") as carol,
        ):
            slow = await bob.subscribe("topic.x", group="workers", window=2)
            fast = await carol.subscribe("topic.x", group="workers", window=2)
            got: tuple[list[bytes], list[bytes]] = ([], [])
            async with asyncio.TaskGroup() as group:
                readers = [
                    group.create_task(read(slow, got[0], pause=60)),
                    group.create_task(read(fast, got[1])),
                ]
                for number in range(500):
                    await alice.publish("topic.x", b"%d" % number)
                await eventually(
                    lambda: len(got[1]) == 498
                )  # the other has its window, and one of it
                for task in readers:
                    task.cancel()
            assert len(got[0]) == 1


async def test_a_group_goes_on_after_a_reconnect() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            member = await bob.subscribe("topic.x", group="workers", window=4)
            for _ in range(3):
                await alice.publish("topic.x", b"before")
                assert (await anext(member)).body == b"before"
            broker.kill()
            await eventually(lambda: not alice.connected and not bob.connected)
            broker.start()
            await asyncio.wait_for(asyncio.gather(alice.wait_connected(), bob.wait_connected()), 10)
            for number in range(20):
                await alice.publish("topic.x", b"%d" % number)
                assert (await anext(member)).body == b"%d" % number


async def test_a_window_without_a_group_is_a_mistake() -> None:
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as alice:
            with pytest.raises(LocalProtocolError, match="a window is for a queue group"):
                await alice.subscribe("topic.x", window=5)


# Policies.


async def test_a_reader_in_this_process_that_is_too_slow_loses_by_its_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriptions, "MAX_KEPT_BYTES", 1 << 20)
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            policies = ("drop_old", "drop_new", "disconnect")
            kept = {p: await bob.subscribe("topic.x", policy=p) for p in policies}
            for number in range(100):
                await alice.publish("topic.x", b"%02d" % number + bytes(100_000))
            await eventually(lambda: kept["drop_old"]._count == 100)
            numbers: dict[str, list[int]] = {}
            for policy in ("drop_old", "drop_new"):
                await kept[policy].close()
                numbers[policy] = [int(m.body[:2]) async for m in kept[policy]]
            assert numbers["drop_old"][-1] == 99
            assert kept["drop_old"].gaps == [(1, 100 - len(numbers["drop_old"]))]
            assert numbers["drop_new"] == list(range(len(numbers["drop_new"])))
            assert 5 <= len(numbers["drop_new"]) <= 10
            bodies: list[bytes] = []
            with pytest.raises(Overflow):
                await read(kept["disconnect"], bodies)
            assert [int(b[:2]) for b in bodies] == list(range(len(bodies)))
            assert bob.connected


# What is taken away.


async def test_a_subscription_that_is_no_longer_allowed_ends_and_the_session_goes_on() -> None:
    with running_broker(alice="app", bob="operator") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            everything = await bob.subscribe("mesh.secret")
            allowed = await bob.subscribe("topic.x")
            await bob.serve("mesh.x", lambda _: b"")
            reading = asyncio.create_task(read(everything, []))
            broker.allow("bob", "app")
            broker.reload()
            with pytest.raises(NotAuthorised):
                await asyncio.wait_for(reading, 10)
            await alice.publish("topic.x", b"still here")
            assert (await anext(allowed)).body == b"still here"
            await eventually(lambda: not bob._answers.services)


async def test_a_stopped_reader_that_wants_to_miss_nothing_is_disconnected_and_told() -> None:
    with (
        running_broker(alice="operator", reader="app") as broker,
        reader(broker, "disconnect") as process,
    ):
        async with joined(broker, "alice") as alice:
            process.send_signal(signal.SIGSTOP)
            body = b"%08d" % 1 + bytes(512 << 10)
            for _ in range(300):
                await alice.publish("topic.x", body)
            process.send_signal(signal.SIGCONT)
            await alice.publish("topic.end")
            _, problem = await asyncio.to_thread(process.communicate, timeout=30)
        assert process.returncode == 1
        assert re.search(r"^bus\.errors\.(Overflow|Unreachable): topic\.>", problem, re.MULTILINE)


async def test_what_wants_to_miss_nothing_ends_with_its_connection_and_the_rest_goes_on() -> None:
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as alice:
            strict = await alice.subscribe("topic.x", policy="disconnect")
            healing = await alice.subscribe("topic.x")
            broker.kill()
            broker.start()
            with pytest.raises(Unreachable, match=r"topic\.x: the connection was lost"):
                await asyncio.wait_for(anext(strict), 10)
            await asyncio.wait_for(alice.wait_connected(), 10)
            await alice.publish("topic.x", b"on")
            assert (await anext(healing)).body == b"on"
