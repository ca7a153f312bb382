"""Streams, everybody's answers, requests that may be repeated, services that are found: over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bus import DeadlineExceeded, NotPresent, Refused, Request, Unreachable
from tests.support.broker import running_broker
from tests.support.joined import eventually, joined

# Streams.


async def test_a_stream_brings_every_chunk_in_order() -> None:
    async def count(request: Request) -> AsyncIterator[bytes]:
        for number in range(int(request.body)):
            yield b"%d" % number

    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.count", count)
            for window in (1, 2, 16, 64):
                chunks = [c async for c in alice.stream("app.count", b"500", window=window)]
                assert chunks == [b"%d" % number for number in range(500)]
            assert [c async for c in alice.stream("app.count", b"0")] == []


async def test_an_answerer_is_at_most_a_window_ahead_of_its_reader() -> None:
    produced = 0

    async def endless(_request: Request) -> AsyncIterator[bytes]:
        nonlocal produced
        while True:
            produced += 1
            yield b"%d" % produced

    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.endless", endless)
            stream = alice.stream("app.endless", window=8)
            await anext(stream)
            await asyncio.sleep(0.3)
            assert produced <= 9  # one is made and waits for leave
            for _ in range(100):
                await anext(stream)
            await asyncio.sleep(0.3)
            assert 101 <= produced <= 110
            await stream.aclose()


async def test_leaving_a_stream_ends_its_handler() -> None:
    ended = asyncio.Event()

    async def endless(_request: Request) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more"
        finally:
            ended.set()

    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.endless", endless)
            async with contextlib.aclosing(alice.stream("app.endless")) as stream:
                async for _ in stream:
                    break
            await asyncio.wait_for(ended.wait(), 10)
            ended.clear()
            async with joined(broker, "alice") as leaver:
                await anext(leaver.stream("app.endless"))
            await asyncio.wait_for(ended.wait(), 10)
            ended.clear()
            with pytest.raises(DeadlineExceeded):
                async for _ in alice.stream("app.endless", timeout=0.3):
                    pass
            await asyncio.wait_for(ended.wait(), 10)


async def test_a_stream_that_fails_tells_after_what_came_before() -> None:
    async def breaks(request: Request) -> AsyncIterator[bytes]:
        yield b"1"
        if request.body == b"refuse":
            raise Refused(409, "conflict", "being set")
        if request.body == b"large":
            yield bytes((1 << 20) + 1)
        raise RuntimeError("secret detail")

    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.breaks", breaks)
            for body, err in ((b"refuse", "conflict"), (b"large", "too_large"), (b"", "internal")):
                got: list[bytes] = []
                with pytest.raises(Refused) as refused:
                    await take(alice.stream("app.breaks", body), got)
                assert (got, refused.value.err) == ([b"1"], err)
                assert "secret" not in str(refused.value)
            with pytest.raises(NotPresent):
                await anext(alice.stream("app.nobody"))


async def take(chunks: AsyncIterator[bytes], into: list[bytes]) -> None:
    async for chunk in chunks:
        into.append(chunk)  # noqa: PERF401 - what came before an error counts


async def test_one_reply_is_a_stream_of_one_and_a_stream_is_no_reply() -> None:
    async def stream(_request: Request) -> AsyncIterator[bytes]:
        yield b"chunk"

    with running_broker(alice="app", bob="operator") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await alice.serve("app.plain", lambda request: b"whole " + request.body)
            await alice.serve("app.stream", stream)
            alice.answer("app.direct", stream)
            assert [c async for c in bob.stream("app.plain", b"1")] == [b"whole 1"]
            assert [c async for c in bob.stream("app.direct", to=alice.key)] == [b"chunk"]
            with pytest.raises(Refused, match=r"app\.stream answers with a stream") as refused:
                await bob.request("app.stream")
            assert refused.value.err == "streamed"


async def test_a_stream_ends_with_its_broker() -> None:
    async def endless(_request: Request) -> AsyncIterator[bytes]:
        while True:
            yield b"more"

    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.endless", endless)
            stream = alice.stream("app.endless")
            await anext(stream)
            broker.kill()
            with pytest.raises(Unreachable):
                await take(stream, [])
            await eventually(lambda: not bob._answers._tasks)


# Everybody.


async def test_everybody_who_serves_is_heard_with_proof_of_who_it_is() -> None:
    async def slow(_request: Request) -> bytes:
        await asyncio.sleep(60)
        return b""

    def refuse(_request: Request) -> bytes:
        raise Refused(429, "busy", "later")

    with running_broker(alice="app", bob="app", carol="app", dave="app") as broker:
        async with (
            joined(broker, "alice") as alice,
            joined(broker, "bob") as bob,
            joined(broker, "carol") as carol,
            joined(broker, "dave") as dave,
        ):
            await bob.serve("app.who", lambda _: b"bob")
            await carol.serve("app.who", refuse)
            answers = {a.sender: a async for a in alice.gather("app.who")}
            assert set(answers) == {bob.key, carol.key}
            assert (answers[bob.key].body, answers[bob.key].error) == (b"bob", None)
            error = answers[carol.key].error
            assert isinstance(error, Refused)
            assert error.err == "busy"
            await dave.serve("app.who", slow)
            late = [a.sender async for a in alice.gather("app.who", timeout=0.5)]
            assert sorted(late) == sorted([bob.key, carol.key])
            with pytest.raises(NotPresent):
                await anext(alice.gather("app.nobody"))


async def test_services_are_found_by_those_who_may_with_how_they_went() -> None:
    def answer(request: Request) -> bytes:
        if request.body == b"break":
            raise Refused(409, "conflict", "no")
        return b""

    with running_broker(alice="operator", bob="app", carol="app") as broker:
        async with (
            joined(broker, "alice") as alice,
            joined(broker, "bob") as bob,
            joined(broker, "carol") as carol,
        ):
            assert await alice.discover() == []
            about = {"name": "clock", "version": "1.2", "description": "what time it is"}
            await bob.serve("app.clock.now", answer, **about)
            await bob.serve("app.clock.set", answer, **about)
            await bob.serve("app.unnamed", answer)
            await carol.serve("app.lamp", answer, name="lamp")
            await alice.request("app.clock.now")
            with pytest.raises(Refused):
                await alice.request("app.clock.set", b"break")
            clock, lamp = sorted(await alice.discover(), key=lambda service: service.name)
            assert (clock.name, clock.version, clock.description) == tuple(about.values())
            assert clock.key == bob.key
            assert (clock.requests, clock.errors) == (2, 1)
            assert {(e.subject, e.requests, e.errors) for e in clock.endpoints} == {
                ("app.clock.now", 1, 0),
                ("app.clock.set", 1, 1),
            }
            assert clock.seconds == pytest.approx(sum(e.seconds for e in clock.endpoints))
            assert (lamp.name, lamp.key) == ("lamp", carol.key)
            assert lamp.id != clock.id


# Requests that may be repeated.


async def test_an_idempotent_request_outlives_its_broker() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            started = asyncio.Event()

            async def slow(_request: Request) -> bytes:
                first = not started.is_set()
                started.set()
                await asyncio.sleep(60 if first else 0)
                return b"done"

            await bob.serve("app.slow", slow)
            pending = asyncio.create_task(alice.request("app.slow", timeout=30, idempotent=True))
            await asyncio.wait_for(started.wait(), 10)
            broker.kill()
            broker.start()
            assert await pending == b"done"


async def test_an_idempotent_request_outlives_its_worker() -> None:
    with running_broker(alice="app", bob="app", carol="app") as broker:
        async with joined(broker, "alice") as alice:
            async with joined(broker, "bob") as bob:
                started = asyncio.Event()

                async def never(_request: Request) -> bytes:
                    started.set()
                    await asyncio.sleep(60)
                    return b""

                await bob.serve("app.x", never)
                pending = asyncio.create_task(alice.request("app.x", timeout=30, idempotent=True))
                await asyncio.wait_for(started.wait(), 10)
            await asyncio.sleep(0.2)
            assert not pending.done()
            async with joined(broker, "carol") as carol:
                await carol.serve("app.x", lambda _: b"carol")
                assert await pending == b"carol"


async def test_a_worker_with_its_hands_full_is_asked_no_more_than_it_takes() -> None:
    most = now = 0

    async def work(_request: Request) -> bytes:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return b""

    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.work", work, inflight=3)
            await asyncio.gather(*(alice.request("app.work", timeout=20) for _ in range(50)))
            assert most == 3


async def test_what_is_no_longer_served_is_refused_at_once() -> None:
    with running_broker(alice="app", bob="app") as broker:
        async with joined(broker, "alice") as alice, joined(broker, "bob") as bob:
            await bob.serve("app.x", lambda _: b"")
            await alice.request("app.x")
            await bob.unserve("app.x")
            with pytest.raises(NotPresent):
                await alice.request("app.x")
            await bob.serve("app.x", lambda _: b"again")
            assert await alice.request("app.x") == b"again"
