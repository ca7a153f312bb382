"""Where orders are taken: each becomes a job, whose steps are carried out whoever waits for them."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import TaskGroup
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from viscript.errors import Unknown, ViscriptError
from viscript.jobs import Book, Order, Place
from viscript.jobstore import JobStore
from viscript.protocol import Job, Step, StepState
from viscript.recorder import asker
from viscript.roles import Caller

log = logging.getLogger(__name__)

LIMIT = 3600.0  # seconds after which a step that has come to nothing is unknown


class Outcome(Struct, frozen=True):
    """How a step has ended; `error` is the name of an error class."""

    state: StepState
    text: str = ""
    error: str = ""


Act = Callable[[Step], Awaitable[Outcome]]


class Doing(Struct, frozen=True):
    """One target of an order: what is worked on, and how. What `act` raises is its failure."""

    step: Step
    queue: str  # of one queue one at a time
    act: Act


class Desk:
    """All orders of one daemon. `tasks` lives as long as it does."""

    def __init__(self, tasks: TaskGroup, store: JobStore) -> None:
        self._tasks = tasks
        self._store = store
        self._book = Book(store.read)
        self._acts: dict[Place, Act] = {}
        self._news = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._begun: list[Place] = []  # by an earlier daemon
        for job, request in sorted(store.load(), key=lambda x: x[0].ended or x[0].asked):
            self._begun += self._book.restore(job, request)
            self._book.let_go(job.job)

    def resume(self, act_of: Callable[[str, Step], Act | None]) -> None:
        """What an earlier daemon had begun, by its verb: how its end is waited for. None: nobody can tell."""
        for place in self._begun:
            act = act_of(self._book.get(place.job).verb, self._book.step(place))
            if act is None:
                text = "the daemon ended meanwhile; see: viscript la"
                self._book.settle(place, "unknown", time.time(), text, Unknown.name)
            else:
                self._acts[place] = act
                self._work_on(place)
        self._begun = []
        self._go_on()

    def close(self) -> None:
        """Everything is down: what still waits waits for nothing."""
        for task in self._running:
            task.cancel()

    def jobs(self) -> list[Job]:
        """All that are at work or ended in the last ten minutes, oldest first."""
        self._forget()
        return sorted(self._book, key=lambda job: job.job)

    def get(self, number: int) -> Job:
        """`NotFound` when there is none, or no more."""
        self._forget()
        return self._book.get(number)

    def known(self, caller: Caller, request: str) -> Job | None:
        """The job that the same request has made before: it is not done again."""
        self._forget()
        return self._book.known(caller.key, request)

    def order(
        self, caller: Caller, verb: str, request: str, doings: Sequence[Doing], batch: int = 0
    ) -> Job:
        """Open a job and begin what may begin. `Conflict` when there are too many."""
        order = Order(
            verb, caller.key, caller.name or caller.key, request,
            tuple(doing.step for doing in doings), tuple(doing.queue for doing in doings), batch,
        )  # fmt: skip
        self._book.check(order)
        number = self._store.new(request)
        job = self._book.open(number, order, time.time())
        for index, doing in enumerate(doings):
            self._acts[Place(number, index)] = doing.act
        self._go_on()
        return job

    def cancel(self, number: int, by: str) -> Job:
        job = self._book.cancel(number, by, time.time())
        self._go_on()
        return job

    async def wait(self, number: int, version: int, timeout: float) -> Job:
        """The job as soon as it is newer than `version`, or as it is after so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.get(number).version <= version and self.get(number).ended is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return self.get(number)

    def _go_on(self) -> None:
        for place in self._book.runnable():
            self._book.begin(place, time.time())
            self._work_on(place)
        for job in self._book.changed():
            try:
                self._store.save(job)
                self._book.let_go(job.job)
            except ViscriptError as error:  # who waits for it gets to know all the same
                log.error("job %s is not stored: %s", job.job, error)  # noqa: TRY400
            if job.ended is not None:
                self._over(job)
        self._news.set()

    def _work_on(self, place: Place) -> None:
        task = self._tasks.create_task(self._carry_out(place))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _carry_out(self, place: Place) -> None:
        if not self._book.working(
            place
        ):  # another job came in between before this task had its turn
            return
        asker.set(self._book.get(place.job).by)
        try:
            async with asyncio.timeout(LIMIT):
                outcome = await self._acts.pop(place)(self._book.step(place))
        except TimeoutError:
            outcome = Outcome("unknown", f"nothing came of it in {LIMIT:.0f} s", Unknown.name)
        except ViscriptError as error:
            outcome = Outcome("failed", str(error), error.name)
        except Exception:  # a fault of ours ends one step, not the daemon
            log.exception("job %s", place.job)
            outcome = Outcome("failed", "a fault of viscript; see: viscript logs daemon", "failed")
        self._book.settle(place, outcome.state, time.time(), outcome.text, outcome.error)
        self._go_on()

    def _over(self, job: Job) -> None:
        log.info("job %s (%s, asked for by %s) is %s", job.job, job.verb, job.by, job.state)
        for index in range(len(job.steps)):  # of those that were never begun
            self._acts.pop(Place(job.job, index), None)

    def _forget(self) -> None:
        if old := self._book.prune(time.time()):
            self._store.drop(old)
