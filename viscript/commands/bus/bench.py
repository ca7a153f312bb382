"""`viscript bus bench`: what the broker in use carries, with both ends in this one process."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from viscript.commands.bus.texts import examples

if TYPE_CHECKING:
    from bus.client import Bus, Subscription
    from viscript.commands.bus.where import Where

app = typer.Typer(add_completion=False, rich_markup_mode=None)

MAX_SIZE = 1 << 20
UNDER_WAY = 4 << 20  # bytes published and not yet received: below what any queue on the way holds
MAX_UNDER_WAY = 4096  # messages, likewise
PATIENCE = 30.0  # seconds without a message, then they are lost


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    subject: str
    size: int
    messages: int
    requests: int
    in_flight: int


@app.command(
    "bench",
    epilog=examples(
        "viscript bus bench",
        "viscript bus bench --size 65536 --messages 20000",
        "viscript bus bench --context work --requests 500 --json",
    ),
)
def bench(
    *,
    size: Annotated[
        int, typer.Option(min=0, max=MAX_SIZE, help="Bytes of a message or request.")
    ] = 128,
    messages: Annotated[
        int, typer.Option("--messages", "-n", min=0, max=100_000_000, help="0: not measured.")
    ] = 100_000,
    requests: Annotated[int, typer.Option(min=0, max=10_000_000, help="0: not measured.")] = 2_000,
    in_flight: Annotated[
        int, typer.Option(min=1, max=200, help="Requests at once, in the second round.")
    ] = 64,
    prefix: Annotated[
        str,
        typer.Option(metavar="SUBJECT", help="Subjects below it are used, and must be allowed."),
    ] = "app.bench",
) -> None:
    """Measure messages and requests per second.

    Publisher and subscriber, requester and answerer are two sessions of this one process, encrypted
    as ever: the figures say what one program gets here, not what the broker can carry in all.
    """
    from viscript import options
    from viscript.commands.bus.connection import attend
    from viscript.commands.bus.where import here
    from viscript.output import document, say, table

    place = here()
    plan = Plan(f"{prefix}.{os.urandom(4).hex()}", size, messages, requests, in_flight)
    found = attend(lambda bus: _measure(bus, place, plan), place=place, fast=True)
    if options.as_json():
        document(found)
        return
    say(f"Through the broker at {place.address.endpoint}, both ends in this process, {size} bytes:")
    table(("WHAT", "FIGURE"), _rows(found))


async def _measure(bus: Bus, place: Where, plan: Plan) -> dict[str, float | int | str]:
    from bus.client import connect
    from viscript.commands.bus.connection import NAME

    found: dict[str, float | int | str] = {"endpoint": place.address.endpoint, "size": plan.size}
    async with connect(place.address, place.keypair(), name=f"{NAME} bench") as other:
        if plan.messages:
            found |= await _throughput(bus, other, plan)
        if plan.requests:
            await other.serve(f"{plan.subject}.echo", lambda request: request.body)
            found |= await _single(bus, plan)
            found |= await _many(bus, plan)
    return found


async def _throughput(bus: Bus, other: Bus, plan: Plan) -> dict[str, float | int]:
    """Messages per second that arrive. So many are under way that none is dropped."""
    import asyncio

    from viscript.commands.bus.pub import publish_surely

    await publish_surely(bus, plan.subject, b"")  # or be told why not
    subscription = await other.subscribe(plan.subject)
    window = max(1, min(MAX_UNDER_WAY, UNDER_WAY // (plan.size + 64)))
    counter = _Counter(subscription, plan.messages, window)
    body = os.urandom(plan.size)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(counter.count())
        for number in range(plan.messages):
            while number - counter.seen >= window:
                await counter.more()
            await bus.publish(plan.subject, body)
        while counter.seen < plan.messages:
            await counter.more()
    passed = time.perf_counter() - began
    await subscription.close()
    rate = plan.messages / passed
    return {
        "messages": plan.messages,
        "seconds": round(passed, 6),
        "messages_per_second": round(rate, 1),
        "bytes_per_second": round(rate * plan.size, 1),
        "lost": subscription.lost,
    }


class _Counter:
    """Counts what arrives or was lost, and lets the publisher wait for more."""

    def __init__(self, subscription: Subscription, wanted: int, window: int) -> None:
        import asyncio

        from viscript.output import Progress

        self.seen = 0
        self._subscription = subscription
        self._wanted = wanted
        self._step = max(1, window // 4)  # so that the publisher is woken now and then only
        self._news = asyncio.Event()
        self._progress = Progress()

    async def count(self) -> None:
        arrived = 0
        async for _ in self._subscription:
            arrived += 1
            self.seen = arrived + self._subscription.lost
            if not arrived % self._step:
                self._news.set()
                self._progress.tell(f"{self.seen} of {self._wanted} messages")
            if self.seen >= self._wanted:
                break
        self._news.set()
        self._progress.end()

    async def more(self) -> None:
        """Wait until more have arrived; `Failed` when none does."""
        import asyncio

        from viscript.errors import Failed

        self._news.clear()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._news.wait()
        except TimeoutError:
            raise Failed(f"{self.seen} messages arrived, then none for {PATIENCE:g} s") from None


async def _single(bus: Bus, plan: Plan) -> dict[str, float | int]:
    """One request at a time."""
    from viscript.commands.bus.rtt import at

    body, times = os.urandom(plan.size), list[float]()
    for _ in range(plan.requests):
        began = time.perf_counter()
        await bus.request(f"{plan.subject}.echo", body)
        times.append(time.perf_counter() - began)
    times.sort()
    return {
        "requests": plan.requests,
        "round_trip_median": round(at(times, 0.5), 7),
        "round_trip_p99": round(at(times, 0.99), 7),
    }


async def _many(bus: Bus, plan: Plan) -> dict[str, float | int]:
    """Many requests at a time."""
    import asyncio

    body, left = os.urandom(plan.size), iter(range(plan.requests))

    async def asker() -> None:
        for _ in left:
            await bus.request(f"{plan.subject}.echo", body)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(plan.in_flight):
            tasks.create_task(asker())
    passed = time.perf_counter() - began
    return {"in_flight": plan.in_flight, "requests_per_second": round(plan.requests / passed, 1)}


def _rows(found: dict[str, float | int | str]) -> list[tuple[str, str]]:
    from viscript.output import size

    rows = []
    if "messages" in found:
        rate, volume = float(found["messages_per_second"]), float(found["bytes_per_second"])
        rows.append(("messages delivered", f"{rate:,.0f}/s, {size(volume)}/s"))
        if found["lost"]:
            rows.append(("messages lost", str(found["lost"])))
    if "requests" in found:
        median, p99 = float(found["round_trip_median"]), float(found["round_trip_p99"])
        rows.append(("round trip", f"median {median * 1e3:.3f} ms, p99 {p99 * 1e3:.3f} ms"))
        many = float(found["requests_per_second"])
        rows.append((f"requests, {found['in_flight']} in flight", f"{many:,.0f}/s"))
    return rows
