"""Asks one run of a program again and again, and tells the supervisor what comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from viscript import probes
from viscript.errors import ViscriptError
from viscript.preparing import Prepared
from viscript.records import Probed
from viscript.rules import Probe
from viscript.supervision import events, health

Attempt = Callable[[], Awaitable[str | None]]


class Subject(Struct, frozen=True):
    """Who is asked. `ping` asks it over the bus, `surroundings` are those of its run."""

    launch: int
    generation: int
    output: Path
    printed_from: int  # bytes: where the output of this run begins
    ping: Callable[[float], Awaitable[str | None]]
    watchdog: Callable[[], float | None]  # when it last said that it is well; only changes count
    surroundings: Callable[[], Prepared]
    told: Callable[[Probed], None]  # every answer, for who looks


class Prober:
    """One probe of one run, until `close`. `readying`: it ends with the first good answer."""

    def __init__(
        self,
        subject: Subject,
        probe: Probe,
        feed: Callable[[events.Event], None],
        *,
        readying: bool,
    ) -> None:
        self._subject = subject
        self._probe = probe
        self._feed = feed
        self._readying = readying
        self._log: probes.LogLine | None = None
        self._said: float | None = None
        self._said_at = 0.0

    def asks(self, generation: int, probe: Probe | None, *, readying: bool) -> bool:
        """Whether this is the one that is wanted."""
        mine = (self._subject.generation, self._probe, self._readying)
        return mine == (generation, probe, readying)

    async def run(self) -> None:
        try:
            await asyncio.sleep(self._probe.delay)
            await (self._until_ready() if self._readying else self._while_alive())
        finally:
            if self._log is not None:
                self._log.close()

    async def _until_ready(self) -> None:
        attempts = 0
        while await self._attempt() is not None:
            await asyncio.sleep(health.pause(self._probe, attempts))
            attempts += 1
        self._feed(events.Ready(self._subject.launch, self._subject.generation))

    async def _while_alive(self) -> None:
        state = health.Health(self._probe)
        number, generation = self._subject.launch, self._subject.generation
        while True:
            problem = await self._attempt()
            if state.take(problem):
                if state.well:
                    self._feed(events.Well(number, generation))
                else:
                    self._feed(events.Unwell(number, generation, problem or ""))
            await asyncio.sleep(self._probe.every)

    async def _attempt(self) -> str | None:
        began = time.monotonic()
        problem = await self._ask()
        took = round(time.monotonic() - began, 6)
        self._subject.told(
            Probed(self._probe.kind, problem is None, time.time(), took, problem or "")
        )
        return problem

    async def _ask(self) -> str | None:
        target, timeout = self._probe.target, self._probe.timeout
        problem: str | None = None
        match self._probe.kind:
            case "tcp":
                problem = await probes.tcp(str(target), timeout)
            case "http":
                problem = await probes.http(str(target), timeout)
            case "bus":
                problem = await self._subject.ping(timeout)
            case "log":
                problem = self._printed(str(target))
            case "exec":
                problem = await self._executed(tuple(target), timeout)
            case "notify":
                problem = self._notified()
            case "none":
                pass
        return problem

    def _printed(self, pattern: str) -> str | None:
        if self._log is None:
            start = self._subject.printed_from
            self._log = probes.LogLine(self._subject.output, start, pattern)
        return self._log.look()

    async def _executed(self, argv: tuple[str, ...], timeout: float) -> str | None:
        try:
            run = self._subject.surroundings()
        except ViscriptError as error:
            return str(error)
        user, group = (run.app.user, run.app.group) if run.app is not None else (None, None)
        return await probes.run(argv, run.cwd, run.env, timeout, user or "", group or "")

    def _notified(self) -> str | None:
        now, said = time.monotonic(), self._subject.watchdog()
        if said != self._said or not self._said_at:
            self._said, self._said_at = said, now
        silent = now - self._said_at
        timeout = self._probe.timeout
        return f"no WATCHDOG=1 for {silent:.0f} s" if silent > timeout else None
