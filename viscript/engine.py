"""Carries out what the supervisor decides: begins, probes and ends runs, and writes down what becomes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from asyncio import TaskGroup
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path

from msgspec.structs import replace

from bus.errors import BusError
from viscript import processes
from viscript.errors import Conflict, Failed, ViscriptError
from viscript.generation import Generation, ended_unwatched
from viscript.home import Home
from viscript.membership import BUS_WAIT, Membership
from viscript.preparing import Prepared
from viscript.probing import Prober, Subject
from viscript.processes import Fate
from viscript.recorder import Recorder, cause_of
from viscript.records import ExitInfo, Probed, Record
from viscript.rules import Probe
from viscript.state import Store
from viscript.supervision import events
from viscript.supervision.launch import BROKER, Launch
from viscript.supervision.states import FINAL, UP, Exit, State
from viscript.supervision.supervisor import Supervisor

log = logging.getLogger(__name__)

AT_ONCE = 8  # programs that are begun beside each other
LOOKS, PAUSE = 20, 0.05
NOT_BEGUN = frozenset({State.BLOCKED, State.BACKOFF, State.STARTING})


class Engine:
    """All launches that are not over. `changed` hears of each that has changed.

    `prepare` says what one runs and makes it ready for that, `program` only says it.
    """

    def __init__(
        self, home: Home, store: Store, tasks: TaskGroup,
        prepare: Callable[[int], Awaitable[Prepared]], program: Callable[[int], Prepared],
        changed: Callable[[Record], None], probed: dict[int, Probed],
    ) -> None:  # fmt: skip
        self.records: dict[int, Record] = {}
        self.membership: Membership | None = None
        self.recorder: Recorder | None = None
        self.known: set[str] = set()  # keys that the broker has from the time before it ran
        self.going_down = False
        self.supervisor = Supervisor(lambda: random.uniform(0.8, 1.2))  # noqa: S311
        self._home = home
        self._store = store
        self._tasks = tasks
        self._prepare = prepare
        self._program = program
        self._changed = changed
        self._probed = probed
        self._generations: dict[int, Generation] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._probers: dict[int, tuple[Prober, asyncio.Task[None]]] = {}
        self._cause = ""  # what is being handled, for the recorder
        self._timer: asyncio.TimerHandle | None = None
        self._arming: asyncio.Handle | None = None  # once for all that is handled in one go
        self._news = asyncio.Event()
        self._tidying: set[asyncio.Task[None]] = set()  # need the broker

    def generation(self, number: int) -> Generation | None:
        """The run of this launch that is known last."""
        return self._generations.get(number)

    def have_begun(self, records: Iterable[Record]) -> bool:
        launches = self.supervisor.launches
        known = [launches[record.id] for record in records if record.id in launches]
        return all(launch.spawned or launch.state is not State.STARTING for launch in known)

    async def wait(self, finished: Callable[[], bool], timeout: float | None) -> bool:
        """Until `finished()`, looked at after every change; False when time is up."""
        try:
            async with asyncio.timeout(timeout):
                while not finished():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def feed(self, event: events.Event) -> None:
        """Tell the supervisor, and do what it wants."""
        if isinstance(event, events.Exited | events.Ended | events.Missed):
            number = event.launch.id if isinstance(event, events.Missed) else event.id
            if number in self.records:
                how = self._generations[number].how
                self.records[number].exit = ExitInfo.of(event.exit.code, event.exit.signal, how)
        self._cause = cause_of(event)
        self._carry_out(self.supervisor.handle(event, time.monotonic()))

    def take_over(self, launch: Launch) -> None:
        """What an earlier daemon left: whose process lives goes on as it is, the rest is looked at anew."""
        fate, report = processes.look(self._folder(launch.id))
        begun = report is not None and report.generation >= launch.generation
        waits = launch.state is State.BACKOFF or (launch.state in NOT_BEGUN and not begun)
        if fate is Fate.ENDED and waits and not launch.stop:
            self.feed(events.Start(launch))
            return
        launch = replace(launch, generation=report.generation if report else launch.generation)
        generation = self._generation(launch.id, launch.generation)
        generation.report = report
        if launch.id in self.records:
            generation.printed_from = self.records[launch.id].printed_from
        if fate is Fate.LEFT and report is not None:
            processes.sweep(report)
        elif fate is not Fate.ENDED:
            self.feed(events.Adopt(launch))
            self._spawn(generation.follow(self.feed))
            return
        generation.asked = ended_unwatched(report, launch)
        how = report.exit if report is not None and report.state == "gone" else Exit()
        self.feed(events.Missed(launch, how))

    # The supervisor's actions.

    def _carry_out(self, actions: list[events.Action]) -> None:
        for action in actions:
            match action:
                case events.Spawn(number, count):
                    generation = self._generation(number, count)
                    self._spawn(generation.begin(self._prepare(number), self.feed))
                case events.Terminate(number, force):
                    self._spawn(self._terminate(number, force=force))
                case events.Changed(launch):
                    self._record(launch)
                    self._probe(launch)
        if self._arming is None:
            self._arming = asyncio.get_running_loop().call_soon(self._arm)
        self._news.set()

    def _arm(self) -> None:
        self._arming = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.supervisor.next_timer()
        if due is not None:
            pause = max(0.0, due - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(pause, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._cause = None, "timer"
        self._carry_out(self.supervisor.handle_timer(time.monotonic()))

    def _probe(self, launch: Launch) -> None:
        """Have it asked whether it is ready, or still well, as long as that is a question."""
        wanted: Probe | None = None
        if launch.living and launch.spawned and not launch.stop:
            if launch.state is State.STARTING and launch.ready.kind not in {
                "none",
                "bus",
                "notify",
            }:
                wanted = launch.ready  # of the others it is told
            elif launch.state in UP:
                wanted = launch.alive
        readying = launch.state is State.STARTING
        if launch.id in self._probers:
            prober, task = self._probers[launch.id]
            if prober.asks(launch.generation, wanted, readying=readying):
                return
            del self._probers[launch.id]
            task.cancel()
        if wanted is not None:
            prober = Prober(self._subject(launch), wanted, self.feed, readying=readying)
            self._probers[launch.id] = prober, self._spawn(prober.run())

    def _subject(self, launch: Launch) -> Subject:
        generation, record = self._generations[launch.id], self.records.get(launch.id)

        async def ping(timeout: float) -> str | None:
            if self.membership is None or record is None:
                return "there is no bus"
            return await self.membership.ping(record.key, timeout)

        def surroundings() -> Prepared:
            return generation.prepared or self._program(launch.id)

        def told(answer: Probed) -> None:
            self._probed[launch.id] = answer

        def watchdog() -> float | None:
            return generation.report.watchdog if generation.report is not None else None

        return Subject(
            launch.id, launch.generation, generation.output, generation.printed_from, ping,
            watchdog, surroundings, told,
        )  # fmt: skip

    def _record(self, launch: Launch) -> None:
        """Write down what has changed; a final state also ends what belongs to the launch."""
        record = self.records.get(launch.id)
        if record is None:  # the broker: nobody lists it
            log.info("the broker is %s %s", launch.state, launch.reason)
            if self.recorder is not None:
                self.recorder.broker_is(launch.state, launch.reason, self._cause)
            if launch.state in FINAL:
                self._spawn(self._clear(BROKER))
            return
        before = record.state
        if record.state != launch.state:
            record.since = time.time()
            log.info("%s (ID %s) is %s %s", record.app, record.id, launch.state, launch.reason)
        _take(record, launch)
        generation = self._generations.get(launch.id)
        if generation is not None:
            record.printed_from = generation.printed_from
        record.pid = generation.pid if generation is not None and launch.living else None
        if launch.state in FINAL and not launch.living:
            record.ended = time.time()
            del self.records[launch.id]
            self._probed.pop(launch.id, None)
            self._generations.pop(launch.id, None)
            tidying = self._spawn(self._tidy(record))
            self._tidying.add(tidying)
            tidying.add_done_callback(self._tidying.discard)
        try:
            self._store.save(record)
        except Failed as error:  # what runs is not worse for it; the next change tries again
            log.error("%s (ID %s) is not stored: %s", record.app, record.id, error)  # noqa: TRY400
        if self.recorder is not None:
            self.recorder.changed(record, before, self._cause)
        self._changed(record)

    async def _tidy(self, record: Record) -> None:
        """Its key is no longer let in, its folder goes if nothing lives in it, old records go too."""
        if self.membership is not None and all(r.key != record.key for r in self.records.values()):
            await self.membership.shut_out(record.key)
        await self._clear(record.id)
        for old in self._store.prune():
            for path in self._home.logs.glob(f"{old.id}-*.log*"):
                path.unlink(missing_ok=True)

    async def _clear(self, number: int) -> None:
        """Its keeper says that all is over just before it ends itself."""
        folder = self._folder(number)
        for _ in range(LOOKS):
            if processes.look(folder)[0] is Fate.ENDED:
                processes.clear(folder)
                return
            await asyncio.sleep(PAUSE)

    async def _terminate(self, number: int, *, force: bool) -> None:
        generation, record = self._generations.get(number), self.records.get(number)
        if generation is None:  # it has ended meanwhile
            return
        if number == BROKER and self._tidying:
            await asyncio.wait(self._tidying)

        async def ask() -> bool:
            if record is None or self.membership is None:
                return False
            return await self.membership.shut_down(record.key)

        launch = self.supervisor.launches.get(number)
        steps = launch.stops if launch is not None else ()
        if force:
            generation.kill()
        else:
            await generation.terminate(ask, steps)

    # Runs.

    async def let_in(self, record: Record) -> None:
        """Allow its key, unless the broker has it; `TimeoutError` when the bus stays away."""
        if record.key in self.known:
            self.known.discard(record.key)  # what becomes of it later, the broker is to be asked
            return
        there = lambda: self.membership is not None or self.going_down  # noqa: E731
        if not await self.wait(there, BUS_WAIT):
            raise TimeoutError
        if self.membership is None:
            raise Conflict("there is no bus to start it on")
        await self.membership.let_in(record)

    def _generation(self, number: int, count: int) -> Generation:
        record = self.records.get(number)
        output = (
            self._home.app_log(number, record.app) if record is not None else self._home.broker_log
        )
        ctl = self.keeper_socket(number)
        folder = self._folder(number)
        generation = Generation(number, count, folder, ctl, output, self._turns)
        self._generations[number] = generation
        return generation

    def keeper_socket(self, number: int) -> Path:
        """Where the keeper of a launch takes orders."""
        return self._home.ctl(number)

    def _folder(self, number: int) -> Path:
        return self._home.launches / ("broker" if number == BROKER else str(number))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(_guarded(work))


async def _guarded(work: Coroutine[None, None, None]) -> None:
    """A failure that is not ours ends one errand, not the daemon."""
    try:
        await work
    except (BusError, ViscriptError, TimeoutError) as error:
        log.warning("%s: %s", type(error).__name__, error)


def launch_of(record: Record) -> Launch:
    """What the supervisor knows of a stored launch."""
    return Launch(
        record.id, record.app, record.after, record.ready_probe, record.alive_probe,
        record.restart, record.stops, state=State(record.state), generation=record.generation,
        restarts=record.restarts, failures=record.failures, streak=record.streak,
        stop=record.stop, again=record.again, problem=record.problem, was_ready=record.ready,
    )  # fmt: skip


def _take(record: Record, launch: Launch) -> None:
    """What the supervisor has decided, in the record."""
    record.state, record.reason, record.problem = launch.state, launch.reason, launch.problem
    record.restarts, record.failures, record.streak = (
        launch.restarts,
        launch.failures,
        launch.streak,
    )
    record.stop, record.again = launch.stop, launch.again
    record.wanted = "down" if launch.stop else "up"
    record.generation, record.ready = launch.generation, launch.was_ready
    record.next_try = None
    if launch.state is State.BACKOFF and launch.deadline is not None:
        record.next_try = time.time() + launch.deadline - time.monotonic()
