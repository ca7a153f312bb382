"""The statistics tick: what all launches use, and how fast, measured once however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

from bus.errors import BusError
from viscript.membership import Membership
from viscript.records import Usage
from viscript.usage import Root, Sample, scan

FRESH = (
    0.2  # seconds for which a reading is good enough, and the least between two that make a rate
)
STALE = 15.0  # a rate over longer says nothing of now
PAUSE = 0.25  # between the two readings of who asks for the first time


class Target(Struct, frozen=True):
    """A launch that is measured; without a key it is not on the bus."""

    id: int
    app: str
    pid: int
    root: Root
    key: str = ""
    instance: int = 0


class Reading(Struct, frozen=True):
    """Everything at one moment, on the monotonic clock."""

    at: float
    samples: Mapping[int, Sample] = {}
    bus: Mapping[str, tuple[int, int]] = {}  # bytes in and out by key


class Meter:
    """Keeps the last two readings. Nothing is measured while nobody asks."""

    def __init__(self) -> None:
        self._before: Reading | None = None
        self._last: Reading | None = None
        self._lock = asyncio.Lock()

    async def usage(self, targets: list[Target], membership: Membership | None) -> list[Usage]:
        """What each uses now; those that have ended meanwhile are left out.

        `targets` are all that run, whoever asks for which of them: readings are for everybody.
        """
        async with self._lock:
            last = self._last
            if last is None or time.monotonic() - last.at > STALE:
                last = await _read(targets, membership)
            elif self._before is not None and time.monotonic() - last.at < FRESH:
                return _usages(targets, self._before, last)
            await asyncio.sleep(max(0.0, last.at + PAUSE - time.monotonic()))
            self._before, self._last = last, await _read(targets, membership)
            return _usages(targets, self._before, self._last)


def _usages(targets: list[Target], before: Reading, last: Reading) -> list[Usage]:
    found = [usage(target, before, last) for target in targets]
    return [each for each in found if each.processes]


async def _read(targets: list[Target], membership: Membership | None) -> Reading:
    bus: Mapping[str, tuple[int, int]] = {}
    if membership is not None and any(target.key for target in targets):
        with suppress(BusError):  # it is away just now: the rest is worth telling
            bus = await membership.traffic()
    at = time.monotonic()
    return Reading(at, scan({target.id: target.root for target in targets}), bus)


def usage(target: Target, before: Reading, last: Reading) -> Usage:
    """The difference of two readings. Pure."""
    seconds = max(last.at - before.at, 1e-6)
    sample = last.samples.get(target.id, Sample())
    used = sample.cpu_seconds - before.samples.get(target.id, Sample()).cpu_seconds
    shown = Usage(
        id=target.id, instance=target.instance, app=target.app, pid=target.pid, processes=sample.processes,
        cpu_percent=round(max(0.0, used) / seconds * 100, 1),
        cpu_seconds=round(sample.cpu_seconds, 2), rss=sample.rss, threads=sample.threads,
        open_files=sample.files, seconds=round(seconds, 3),
    )  # fmt: skip
    if (counts := last.bus.get(target.key)) is not None:
        # A session that is new counts from zero.
        earlier = before.bus.get(target.key, (0, 0))
        shown.bus_in, shown.bus_out = counts
        shown.bus_in_rate, shown.bus_out_rate = (
            round(max(0, now - then) / seconds, 1)
            for now, then in zip(counts, earlier, strict=True)
        )
    return shown
