"""The workers of benchmarks/bus.py: a process each, told by one JSON line, telling one at the end.

Every role comes in three makes: `our`, `nats` (nats-py) and, for topics, `mqtt` (paho-mqtt, QoS 0).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

# Run as a script, this file's folder comes first on the path; see benchmarks/bus.py.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

from bus import Address, KeyPair, Request, connect, keystore  # noqa: E402

SUBJECT = "bench.topic"
SERVICE = "bench.echo"
STORED = "topic.bench.stored"

Job = dict[str, Any]


def ready() -> None:
    print("ready", flush=True)


def told_to_go() -> None:
    sys.stdin.readline()


# Ours.


def ours(job: Job) -> tuple[Address, KeyPair]:
    return Address(job["endpoint"], job["key"]), keystore.load(Path(job["key_file"]))


async def our_subscriber(job: Job) -> Job:
    """As many connections as `readers`, each of which reads all messages.

    What the broker drops because a publisher outruns a reader does not count as delivered.
    """
    count, size = job["count"], job["size"]

    async def read(subscription: Any) -> int:
        seen = 0
        async for message in subscription:
            assert len(message.body) == size
            seen += 1
            if seen + subscription.lost >= count:
                break
        return seen

    async with AsyncExitStack() as stack:
        buses = [
            await stack.enter_async_context(connect(*ours(job))) for _ in range(job["readers"])
        ]
        subscriptions = [await bus.subscribe(SUBJECT) for bus in buses]
        ready()
        seen = await asyncio.gather(*map(read, subscriptions))
        return {"end": time.monotonic(), "seen": sum(seen)}


async def our_publisher(job: Job) -> Job:
    body = bytes(job["size"])
    async with connect(*ours(job)) as bus:
        ready()
        told_to_go()
        start = time.monotonic()
        for _ in range(job["count"]):
            await bus.publish(SUBJECT, body)
        await bus.request("$SYS.info", timeout=60)  # everything before it has reached the broker
        return {"start": start}


async def our_server(job: Job) -> Job:
    def echo(request: Request) -> bytes:
        return request.body

    async with connect(*ours(job)) as bus:
        await bus.serve(SERVICE, echo)
        ready()
        await asyncio.to_thread(told_to_go)
        return {}


async def our_requester(job: Job) -> Job:
    async with connect(*ours(job)) as bus:
        return await ask_all(job, lambda body: bus.request(SERVICE, body))


async def our_storer(job: Job) -> Job:
    async with connect(*ours(job)) as bus:
        return await ask_all(job, lambda body: bus.store(STORED, body))


# NATS.


async def nats_subscriber(job: Job) -> Job:
    import nats

    count, size = job["count"], job["size"]
    clients, ends = [], []
    for _ in range(job["readers"]):
        client = await nats.connect(job["endpoint"])
        end = asyncio.Event()
        seen = 0

        async def arrived(message: Any, end: asyncio.Event = end) -> None:
            assert len(message.data) == size
            end.seen = getattr(end, "seen", 0) + 1  # type: ignore[attr-defined]
            if end.seen == count:  # type: ignore[attr-defined]
                end.set()

        await client.subscribe(
            SUBJECT, cb=arrived, pending_msgs_limit=1 << 30, pending_bytes_limit=1 << 40
        )
        await client.flush()
        clients.append(client)
        ends.append(end)
    del seen
    ready()
    await asyncio.gather(*(end.wait() for end in ends))
    end_time = time.monotonic()
    for client in clients:
        await client.close()
    return {"end": end_time, "seen": count * len(clients)}


async def nats_publisher(job: Job) -> Job:
    import nats

    body = bytes(job["size"])
    client = await nats.connect(job["endpoint"])
    ready()
    told_to_go()
    start = time.monotonic()
    for _ in range(job["count"]):
        await client.publish(SUBJECT, body)
    await client.flush(60)
    await client.close()
    return {"start": start}


async def nats_server(job: Job) -> Job:
    import nats

    async def echo(message: Any) -> None:
        await message.respond(message.data)

    client = await nats.connect(job["endpoint"])
    await client.subscribe(SERVICE, cb=echo)
    await client.flush()
    ready()
    await asyncio.to_thread(told_to_go)
    await client.close()
    return {}


async def nats_requester(job: Job) -> Job:
    import nats

    client = await nats.connect(job["endpoint"])
    times = await ask_all(job, lambda body: client.request(SERVICE, body, timeout=5))
    await client.close()
    return times


async def nats_storer(job: Job) -> Job:
    import nats

    client = await nats.connect(job["endpoint"])
    stream = client.jetstream()
    await stream.add_stream(name="bench", subjects=[STORED])
    times = await ask_all(job, lambda body: stream.publish(STORED, body))
    await stream.delete_stream("bench")
    await client.close()
    return times


# MQTT.


async def mqtt_subscriber(job: Job) -> Job:
    done, seen = threading.Event(), 0
    client = _mqtt(job)

    def arrived(_client: Any, _data: Any, message: Any) -> None:
        nonlocal seen
        assert len(message.payload) == job["size"]
        seen += 1
        if seen == job["count"]:
            done.set()

    client.on_message = arrived
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.subscribe("bench/topic", qos=0)
    client.loop_start()
    subscribed.wait(10)
    ready()
    done.wait()
    end = time.monotonic()
    client.disconnect()
    return {"end": end, "seen": seen}


async def mqtt_publisher(job: Job) -> Job:
    body = bytes(job["size"])
    client = _mqtt(job)
    client.loop_start()
    ready()
    told_to_go()
    start = time.monotonic()
    for number in range(job["count"]):
        info = client.publish("bench/topic", body, qos=0)
        if number % 500 == 499:  # paho queues without bound
            info.wait_for_publish(60)
    info.wait_for_publish(60)
    client.disconnect()
    return {"start": start}


def _mqtt(job: Job) -> Any:
    import paho.mqtt.client as mqtt

    host, port = job["endpoint"].split(":")
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect(host, int(port))
    return client


# What is measured of anything that is asked and answers.


async def ask_all(job: Job, ask: Callable[[bytes], Awaitable[object]]) -> Job:
    """`count` questions, `flight` at once: rate per second, and round trips in microseconds.

    With `pace` (per second) they are asked by the clock, however long the answers take: the load is the
    asker's choice then, and a round trip counts from the moment at which it should have been asked.
    """
    body, count, flight = bytes(job["size"]), job["count"], job["flight"]
    for _ in range(max(64, count // 10)):
        await ask(body)
    taken: list[float] = []
    start = time.perf_counter()
    if pace := job.get("pace"):
        await _by_the_clock(ask, body, count, pace, taken)
    else:
        numbers = iter(range(count))

        async def one_after_another() -> None:
            for _ in numbers:
                asked = time.perf_counter()
                await ask(body)
                taken.append(time.perf_counter() - asked)

        await asyncio.gather(*(one_after_another() for _ in range(flight)))
    rate = count / (time.perf_counter() - start)
    taken.sort()
    return {
        "rate": rate, "p50": statistics.median(taken) * 1e6, "p99": taken[len(taken) * 99 // 100] * 1e6
    }  # fmt: skip


async def _by_the_clock(
    ask: Callable[[bytes], Awaitable[object]],
    body: bytes,
    count: int,
    pace: float,
    taken: list[float],
) -> None:
    start = time.perf_counter()

    async def one(due: float) -> None:
        await ask(body)
        taken.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = start + number / pace
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            group.create_task(one(due))


def main() -> None:
    job = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(globals()[sys.argv[1]](job))), flush=True)


if __name__ == "__main__":
    main()
