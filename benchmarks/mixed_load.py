"""The load of benchmarks/soak.py: a process, told by one JSON line, telling one at the end.

Everything that a broker does goes on at once, from when it starts until standard input says more or ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

# Run as a script, this file's folder comes first on the path; see benchmarks/bus.py.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.watched_broker import read_page  # noqa: E402
from bus import Address, Bus, Request, connect, keystore, signals, sockets, wire  # noqa: E402
from bus.errors import BusError  # noqa: E402
from bus.signals import ConsumerConfig, TopicConfig, pack  # noqa: E402


class Load:
    """All that is done to the broker at once. `admin` may all, `app` not all, `stranger` is unknown."""

    def __init__(self, job: dict[str, str]) -> None:
        self.address = Address(job["endpoint"], job["key"])
        folder = Path(job["folder"])
        self.keys = {n: keystore.load(folder / f"{n}.key") for n in ("admin", "app", "stranger")}
        self.pages = job["pages"]
        self.context = sockets.new_context()
        self.stopping = asyncio.Event()
        self.done = dict.fromkeys(
            ("published", "asked", "stored", "visited", "denied", "scraped"), 0
        )

    async def run(self) -> None:
        """Until standard input ends."""
        async with asyncio.TaskGroup() as tasks:
            for work in (
                self.publish, self.read, self.lag, self.share, self.share, self.serve, self.ask,
                self.keep, self.visit, self.fall, self.be_denied, self.knock, self.be_deaf, self.scrape,
            ):  # fmt: skip
                tasks.create_task(work())
            await asyncio.to_thread(sys.stdin.readline)
            self.stopping.set()

    async def every(self, seconds: float) -> AsyncIterator[int]:
        """Count turns, `seconds` apart, until it is over."""
        number = 0
        while not self.stopping.is_set():
            yield number
            number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)

    @contextlib.asynccontextmanager
    async def joined(self, name: str, key: str = "admin") -> AsyncIterator[Bus]:
        async with connect(self.address, self.keys[key], name=name, timeout=30) as bus:
            yield bus

    @contextlib.contextmanager
    def dialled(self, key: str) -> Iterator[tuple[sockets.Socket, sockets.Socket]]:
        """A connection without a client, and its monitor."""
        socket, monitor = sockets.dial(
            self.context, self.keys[key], self.address, max_message=2 << 20
        )
        try:
            yield socket, monitor
        finally:
            sockets.close(socket)
            monitor.close(linger=0)

    async def publish(self) -> None:
        async with self.joined("publisher") as bus:
            async for _ in self.every(0.02):
                for _ in range(20):
                    await bus.publish("soak.topic", bytes(128))
                await bus.publish("soak.shared", bytes(64))
                for _ in range(4):
                    await bus.publish("soak.large", bytes(16 << 10))
                self.done["published"] += 25

    async def read(self) -> None:
        async with self.joined("reader") as bus:
            await self.read_on(bus, "soak.*", 0.0)

    async def lag(self) -> None:
        """Too slow for what comes: its own queue gives way."""
        async with self.joined("slow reader") as bus:
            await self.read_on(bus, "soak.topic", 0.01)

    async def share(self) -> None:
        async with self.joined("member") as bus:
            await self.read_on(bus, "soak.shared", 0.0, group="workers")

    async def read_on(self, bus: Bus, pattern: str, pause: float, group: str = "") -> None:
        subscription = await bus.subscribe(pattern, group=group)
        reading = asyncio.create_task(self._read(subscription, pause))
        await self.stopping.wait()
        reading.cancel()
        await asyncio.wait([reading])

    async def _read(self, subscription: AsyncIterator[object], pause: float) -> None:
        async for _ in subscription:
            if pause:
                await asyncio.sleep(pause)

    async def serve(self) -> None:
        async def chunks(request: Request) -> AsyncIterator[bytes]:
            for _ in range(8):
                yield request.body

        async with self.joined("server") as bus:
            await bus.serve("soak.echo", lambda request: request.body, name="echo", inflight=8)
            await bus.serve("soak.chunks", chunks, name="chunks")
            await self.stopping.wait()

    async def ask(self) -> None:
        async with self.joined("asker") as bus:
            async for number in self.every(0.02):
                # The server may not be there yet, or not any more.
                with contextlib.suppress(BusError):
                    await asyncio.gather(*[bus.request("soak.echo", bytes(64)) for _ in range(4)])
                    if number % 10 == 0:
                        async for _ in bus.stream("soak.chunks", bytes(1000)):
                            pass
                        async for _ in bus.gather("soak.echo", b"all"):
                            pass
                        await bus.request("soak.echo", b"once", idempotent=True)
                    self.done["asked"] += 4
                with contextlib.suppress(BusError):
                    await bus.request("soak.nobody", b"")

    async def keep(self) -> None:
        """A durable topic: stored, pulled, settled or dropped again, thinned out by its limit."""
        async with self.joined("keeper") as bus:
            await bus.request(
                signals.TOPIC_PUT, pack(TopicConfig("soak", ["soak.kept.>"], max_messages=2000))
            )
            await bus.request(
                signals.CONSUMER_PUT, pack(ConsumerConfig("soak", "worker", max_deliver=3))
            )
            async for number in self.every(0.05):
                await asyncio.gather(
                    *[
                        bus.store(f"soak.kept.{n}", bytes(200), message_id=f"{number}-{n}")
                        for n in range(4)
                    ]
                )
                self.done["stored"] += 4
                pulled = await bus.pull("soak", "worker", n=8)
                await bus.settle(pulled[1:])
                if pulled:
                    await pulled[0].nak()

    async def visit(self) -> None:
        async for number in self.every(0.1):
            with contextlib.suppress(BusError):
                async with self.joined(f"visitor {number}") as bus:
                    await bus.subscribe(f"soak.visit.{number}.>")
                    await bus.serve(f"soak.visit.{number}", lambda request: request.body)
                    await bus.request(f"soak.visit.{number}", b"me")
                    self.done["visited"] += 1

    async def fall(self) -> None:
        """Sessions that end without a word, so that their will is published."""
        async for number in self.every(0.2):
            await asyncio.to_thread(self._fall, number)

    def _fall(self, number: int) -> None:
        hello = wire.Hello(name=f"fallen {number}", will="soak.topic")
        with self.dialled("admin") as (socket, _):
            socket.send_multipart([wire.encode(hello), b"gone"])
            socket.poll(2000)

    async def be_denied(self) -> None:
        async with self.joined("app", "app") as bus:
            async for _ in self.every(0.05):
                with contextlib.suppress(BusError):
                    await bus.request("mesh.denied", b"")
                self.done["denied"] += 1

    async def knock(self) -> None:
        async for _ in self.every(0.5):
            await asyncio.to_thread(self._knock)

    def _knock(self) -> None:
        with self.dialled("stranger") as (_, monitor):
            sockets.wait([monitor], 1.0)

    async def be_deaf(self) -> None:
        """Subscribes, reads nothing for a while, then leaves: its queue fills and is freed."""
        async for _ in self.every(0.3):
            await asyncio.to_thread(self._be_deaf)

    def _be_deaf(self) -> None:
        with self.dialled("admin") as (socket, _):
            socket.send(wire.encode(wire.Hello(name="deaf")))
            socket.send(wire.encode(wire.Subscribe(1, 1, "soak.large")))
            time.sleep(4)

    async def scrape(self) -> None:
        async for _ in self.every(2.0):
            for page in ("metrics", "sessions", "closed", "services", "topics"):
                await asyncio.to_thread(read_page, f"{self.pages}/{page}")
            self.done["scraped"] += 1


def main() -> None:
    job = json.loads(sys.stdin.readline())

    async def work() -> dict[str, int]:
        load = Load(job)
        try:
            await load.run()
        finally:
            load.context.destroy(linger=0)
        return load.done

    print(json.dumps(asyncio.run(work())), flush=True)


if __name__ == "__main__":
    main()
