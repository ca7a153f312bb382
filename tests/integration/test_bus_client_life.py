"""How a participant comes and goes: wills, drains, notices, revocation; over real sockets."""

import asyncio
import subprocess
import sys
import time

import pytest

from bus import (
    LocalProtocolError,
    NotAuthorised,
    NotPresent,
    Refused,
    Request,
    Unreachable,
    connect,
)
from tests.support.broker import running_broker
from tests.support.joined import eventually, joined

WILLING = """
import asyncio, sys
from pathlib import Path
from bus import Address, connect, keystore
endpoint, key, file = sys.argv[1:]
async def main():
    will = ("app.gone", b"without a word")
    async with connect(Address(endpoint, key), keystore.load(Path(file)), will=will):
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_will_is_published_after_a_crash_and_not_after_a_goodbye() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice:
            gone = await alice.subscribe("app.gone")
            async with joined(broker, "bob", will=("app.gone", b"never")):
                pass
            with subprocess.Popen(
                [
                    sys.executable, "-P", "-c", WILLING, broker.address.endpoint,
                    broker.address.key, str(broker.folder / "bob.key"),
                ],
                stdout=subprocess.PIPE, text=True,
            ) as process:  # fmt: skip
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                process.kill()
            message = await asyncio.wait_for(anext(gone), 20)
            assert (message.body, message.sender) == (
                b"without a word",
                broker.keys["bob"].public,
            )


async def test_a_will_that_may_not_be_published_is_refused_at_once() -> None:
    with running_broker(alice="app") as broker:
        began = time.monotonic()
        with pytest.raises(NotAuthorised, match=r"mesh\.x"):
            async with joined(broker, "alice", will=("mesh.x", b""), timeout=30):
                pass
        assert time.monotonic() - began < 10
        with pytest.raises(LocalProtocolError):
            async with joined(broker, "alice", will=("app.*", b"")):
                pass


# Leaving.


async def test_draining_finishes_what_was_begun_and_takes_nothing_new() -> None:
    started = asyncio.Event()

    async def slow(request: Request) -> bytes:
        started.set()
        await asyncio.sleep(0.3)
        return b"done " + request.body

    with running_broker(alice="operator", bob="app", carol="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "carol") as carol:
            heard = await alice.subscribe("topic.x")
            async with joined(broker, "bob") as bob:
                await bob.serve("app.slow", slow)
                bob.answer("app.slow", slow)
                pending = [
                    asyncio.create_task(alice.request("app.slow", b"1")),
                    asyncio.create_task(alice.request("app.slow", b"2", to=bob.key)),
                ]
                await asyncio.wait_for(started.wait(), 10)
                for number in range(5000):
                    bob.publish_nowait("topic.x", b"%d" % number)
                leaving = asyncio.create_task(bob.drain())
                await eventually(lambda: bob._answers.leaving)
                with pytest.raises(NotPresent):
                    await alice.request("app.slow")
                with pytest.raises(Refused, match="leaving"):
                    await alice.request("app.slow", to=bob.key)
                assert await asyncio.gather(*pending) == [b"done 1", b"done 2"]
                await leaving
                with pytest.raises(Unreachable, match="closed"):
                    await bob.request("app.slow")
            for number in range(5000):
                assert (await anext(heard)).body == b"%d" % number
            assert carol.connected


async def test_draining_waits_no_longer_than_it_may() -> None:
    started = asyncio.Event()

    async def never(_request: Request) -> bytes:
        started.set()
        await asyncio.sleep(60)
        return b""

    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.never", never)
            pending = asyncio.create_task(alice.request("app.never", timeout=30))
            await asyncio.wait_for(started.wait(), 10)
            began = time.monotonic()
            await bob.drain(timeout=0.3)
            assert time.monotonic() - began < 5
            with pytest.raises(NotPresent):
                await pending


async def test_what_was_published_before_the_end_of_the_block_arrives() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice:
            heard = await alice.subscribe("topic.x")
            async with joined(broker, "bob") as bob:
                for number in range(5000):
                    bob.publish_nowait("topic.x", b"%d" % number)
            for number in range(5000):
                assert (await anext(heard)).body == b"%d" % number


# The broker stops.


async def test_a_broker_that_stops_gives_notice_and_ends_when_nothing_is_under_way() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            started, go = asyncio.Event(), asyncio.Event()

            async def slow(_request: Request) -> bytes:
                started.set()
                await go.wait()
                return b"in time"

            notices: list[tuple[float, str]] = []
            alice.on_notice(lambda seconds, reason: notices.append((seconds, reason)))
            await bob.serve("app.slow", slow)
            pending = asyncio.create_task(alice.request("app.slow", timeout=30))
            await asyncio.wait_for(started.wait(), 10)
            stopping = asyncio.create_task(asyncio.to_thread(broker.stop))
            await eventually(lambda: notices)
            with pytest.raises(Unreachable):
                await alice.request("app.slow")
            again = asyncio.create_task(alice.request("app.slow", timeout=30, idempotent=True))
            await asyncio.sleep(0.1)
            assert not again.done()
            go.set()
            assert await pending == b"in time"
            assert await stopping == 0
            [(seconds, _)] = notices
            assert 0 < seconds <= 10
            broker.start()
            assert await again == b"in time"


# Revocation.


async def test_calls_of_a_revoked_key_are_refused_not_late() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice:
            subscription = await alice.subscribe("topic.x")
            broker.forbid("alice")
            broker.reload()
            await eventually(lambda: not alice.connected)
            began = time.monotonic()
            for _ in range(2):
                with pytest.raises(NotAuthorised, match=r"does not allow the key"):
                    await alice.request("app.x", timeout=30)
            with pytest.raises(NotAuthorised):
                await alice.subscribe("topic.y")
            with pytest.raises(NotAuthorised):
                await anext(alice.stream("app.x"))
            with pytest.raises(NotAuthorised):
                await alice.publish("topic.x")
            assert time.monotonic() - began < 15
            broker.allow("alice", "app")
            broker.reload()
            await asyncio.wait_for(alice.wait_connected(), 10)
            await alice.publish("topic.x", b"back")
            assert (await anext(subscription)).body == b"back"


async def test_a_publisher_that_waits_for_room_is_told_of_its_revocation() -> None:
    with running_broker(alice="app") as broker:
        async with joined(broker, "alice") as alice:
            broker.kill()
            await eventually(lambda: not alice.connected)

            async def publish() -> None:
                while True:
                    await alice.publish("topic.x", bytes(1 << 20))

            publishing = asyncio.create_task(publish())
            await eventually(lambda: alice._queue.full)
            broker.forbid("alice")
            broker.start()
            with pytest.raises(NotAuthorised):
                await asyncio.wait_for(publishing, 15)


async def test_the_block_is_left_cleanly_whatever_the_broker_does() -> None:
    with running_broker(alice="app") as broker:
        began = time.monotonic()
        async with connect(broker.address, broker.keys["alice"]):
            broker.signal(19)  # SIGSTOP: it will not say goodbye
        assert time.monotonic() - began < 5
        broker.signal(18)
