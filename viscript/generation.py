"""One run of a launch: from the spawn of its keeper to the end of its last process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path

from bus.errors import BusError, NotAuthorised
from viscript import processes
from viscript.errors import ViscriptError
from viscript.holding import Held
from viscript.preparing import Prepared
from viscript.processes import Fate, Link, Report, Spec
from viscript.rules import StopStep
from viscript.supervision import events
from viscript.supervision.launch import Launch
from viscript.supervision.states import Exit

log = logging.getLogger(__name__)

BUS_GRACE = 12.0  # seconds after a shutdown over the bus; `bus.process` gives a program 5 + 5
PROBE = 1.0  # seconds between two looks at what is lost
SILENCE = 5.0  # seconds until a keeper that says nothing at all is mute
PATIENCE = 3  # looks in quick succession: a keeper may just be starting or ending
PERMANENT = frozenset({2, 8, 13, 20})  # ENOENT, ENOEXEC, EACCES, ENOTDIR: the same again next time
UNSEEN = "nobody saw it end"

_AT_ONCE: AbstractAsyncContextManager[None] = nullcontext()

Feed = Callable[[events.Event], None]


class Generation:
    """What is known and done about one run. Events go to `feed`, in the order they happen.

    In `turns` it waits to be begun.
    """

    def __init__(
        self, launch: int, number: int, folder: Path, ctl: Path, output: Path,
        turns: AbstractAsyncContextManager[None] = _AT_ONCE,
    ) -> None:  # fmt: skip
        self.launch = launch
        self.number = number
        self.folder = folder
        self.report: Report | None = None
        self.asked = ""  # what was done last to end it
        self.prepared: Prepared | None = None  # None: begun by an earlier daemon
        self.output = output
        self.printed_from = 0  # where in `output` its own begins
        self._ctl = ctl
        self._turns = turns
        self._link: Link | None = None
        self._held: Held | None = None
        self._asking = False
        self._extended: float | None = None  # what was told of it last
        self._steps: tuple[StopStep, ...] | None = (
            None  # for its keeper, as soon as there is a link
        )
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the program itself, while it runs."""
        alive = self.report is not None and self.report.state == "running"
        return self.report.pid if self.report is not None and alive else None

    @property
    def _refused(self) -> bool:
        """Its keeper says itself that it could not run it."""
        return self.report is not None and self.report.state == "failed"

    @property
    def how(self) -> str:
        return self.asked or "by itself"

    async def begin(self, prepare: Awaitable[Prepared], feed: Feed) -> None:
        """Start it, and follow it to its end."""
        problem, permanent = await self._begin(prepare)
        # One that was given up on may have come up after all, or an earlier one lives: then that is followed.
        if problem is not None and (self._refused or processes.look(self.folder)[0] is Fate.ENDED):
            feed(events.SpawnFailed(self.launch, self.number, problem, permanent))
            return
        feed(events.Spawned(self.launch, self.number))
        await self.follow(feed)

    async def _begin(self, prepare: Awaitable[Prepared]) -> tuple[str | None, bool]:
        """Why it does not run, and whether it would be the same again."""
        try:
            self.prepared = run = await prepare
            self.printed_from = processes.end_of(self.output)
            spec = run.spec(self.launch, self.number, self.output, self._ctl)
            async with self._turns:
                self.report = await processes.spawned(self.folder, spec, run.env)
        except TimeoutError:
            return "the bus was away too long", False
        except (ViscriptError, BusError, OSError) as error:
            return str(error), isinstance(error, ViscriptError | NotAuthorised)
        if self.report.state == "failed":
            problem = f"{run.argv[0]} cannot be run: {self.report.error}"
            return problem, self.report.errno in PERMANENT
        return None, False

    async def follow(self, feed: Feed) -> None:
        """Until nothing of it is left, whatever happens to its keeper."""
        misses = 0
        if self.report is not None:  # from now on its end is seen, should its keeper be killed
            self._hold(self.report)
        while not self._ended.is_set():
            if await self._listen(feed):
                misses = 0
            fate, report = processes.look(self.folder)
            if self._ended.is_set():
                return
            if fate is Fate.ENDED:
                if self._held is not None and report is not None and report.state != "gone":
                    report = await asyncio.to_thread(self._held.finish, report)
                seen = report is not None and report.state == "gone"
                self.asked = self.asked if seen else self.asked or UNSEEN
                self._end(report.exit if report is not None and seen else Exit(), feed)
            elif fate is Fate.ORPHANED and report is not None:
                await self._keep_again(report)
            elif fate is Fate.LEFT and report is not None:
                await asyncio.to_thread(processes.sweep, report)
            else:
                misses += 1
                if misses == PATIENCE:
                    unknown = "it runs, but its record cannot be read"
                    silent = "its keeper does not answer"
                    feed(events.Mute(self.launch, unknown if fate is Fate.UNKNOWN else silent))
                await asyncio.sleep(PROBE if misses > PATIENCE else PROBE / 10)

    async def _listen(self, feed: Feed) -> bool:
        """Hear the keeper out until it hangs up; False when it says nothing."""
        try:
            self._link = await Link.open(self._ctl)
        except OSError:
            return False
        if self._steps is not None:
            self._link.stop(self._steps)
        heard = False
        reports = self._link.reports()
        try:
            async with asyncio.timeout(SILENCE):
                first = await anext(reports, None)
        except TimeoutError:  # it lives, but does nothing
            feed(events.Mute(self.launch, "its keeper does not answer"))
            first = None
        try:
            async for report in _chain(first, reports):
                self.report = report
                if not heard:
                    feed(events.Found(self.launch))
                heard = True
                self._take(report, feed)
        finally:
            self._link.close()
            self._link = None
        return heard

    def _take(self, report: Report, feed: Feed) -> None:
        """Pass on what its keeper says."""
        self._hold(report)
        if report.ready:
            feed(events.Ready(self.launch, self.number))
        if report.extended is not None and report.extended != self._extended:
            self._extended = report.extended
            feed(events.Extended(self.launch, self.number, report.extended))
        if _was_killed(report):
            self.asked = _killed(self._steps)
        if report.state == "exited":
            feed(events.Exited(self.launch, self.number, report.exit))
        elif report.state == "gone":
            self._end(report.exit, feed)

    def _hold(self, report: Report) -> None:
        if self._held is None and report.state == "running":
            self._held = Held.of(self.folder, report)

    async def _keep_again(self, report: Report) -> None:
        """Its keeper was killed: give it a new one, which takes over its output and its end."""
        log.warning("the keeper of launch %s is gone; starting another", self.launch)
        spec = Spec(self.launch, self.number, (), "/", self.output, self._ctl)
        try:
            await processes.spawned(self.folder, spec, os.environ, report)
        except ViscriptError as error:
            log.warning("%s", error)
            await asyncio.sleep(PROBE)

    def _end(self, how: Exit, feed: Feed) -> None:
        self._ended.set()
        if self._held is not None:
            self._held.release()
        feed(events.Ended(self.launch, self.number, how))

    def signal(self, number: int) -> bool:
        """To all its processes; False when its keeper cannot be told."""
        if self._link is None:
            return False
        self._link.signal(number, group=True)
        return True

    def kill(self) -> None:
        """KILL at once."""
        self.asked = "killed, as asked"
        self._end_by(())

    async def terminate(
        self, ask: Callable[[], Awaitable[bool]], steps: tuple[StopStep, ...]
    ) -> None:
        """`ask` it over the bus, then `steps`, then KILL by its keeper."""
        if self._asking:
            return
        self._asking = True
        asked = await ask()
        self._asking = False
        if asked:
            self.asked = "shut down over the bus"
            if await self._ends_within(BUS_GRACE):
                return
            log.info("launch %s did not end after the shutdown over the bus", self.launch)
        if not self._ended.is_set() and self._steps is None:
            self.asked = "stopped"
            self._end_by(steps)

    def _end_by(self, steps: tuple[StopStep, ...]) -> None:
        self._steps = steps
        if self._link is not None:
            self._link.stop(steps)

    async def _ends_within(self, seconds: float) -> bool:
        """Or within the time that it asks for meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := max(deadline, self._extended or 0.0) - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, PROBE)):
                    await self._ended.wait()
                return True
        return self._ended.is_set()


def ended_unwatched(report: Report | None, launch: Launch) -> str:
    """How a run came to its end while there was no daemon, or another one."""
    if report is None or report.state != "gone":
        return UNSEEN
    if _was_killed(report):
        return _killed(launch.stops)
    return "stopped" if launch.stop or launch.again or launch.problem else ""


def _was_killed(report: Report) -> bool:
    """The program itself; what it left behind may have been, whatever it ended with."""
    return report.killed and report.signal == signal.SIGKILL


def _killed(steps: tuple[StopStep, ...] | None) -> str:
    if steps == ():
        return "killed, as asked"
    last = signal.Signals(steps[-1].signal).name if steps else "SIGTERM"
    return f"killed, as {last} did not end it"


async def _chain(first: Report | None, others: AsyncIterator[Report]) -> AsyncIterator[Report]:
    if first is not None:
        yield first
        async for report in others:
            yield report
