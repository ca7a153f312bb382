"""Jobs as a book keeps them: who asked for what, what may begin now, what has become of it. Pure.

Rules:

* One queue for each thing that is worked on: of one queue at most one step is under way, so stopping A never
  waits for B.
* A newer intent takes the place of an older one: a stop or kill ends the waiting for a start of the same
  thing; the older job says which job came in between.
* With `batch` at most so many steps of a job are under way, and after one that failed no other begins.
* The same request of the same key is the same job, however often it is sent.
* What is under way is never called off by `cancel`: it has happened or not, and the job says which.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import msgspec
from msgspec import Struct

from viscript.errors import Conflict, NotFound
from viscript.protocol import Job, JobState, Step, StepState

KEPT = 600.0  # seconds that a result is kept
MAX_OPEN = 200  # unfinished jobs of one key
MAX_STEPS = 1000  # of one job
MAX_KEPT = 5000
ENDED: frozenset[StepState] = frozenset({"done", "failed", "cancelled", "unknown"})
# Of these verbs a newer one does not wait for older ones to come to their end.
OVERRIDING = frozenset({"stop", "kill"})


class Order(Struct, frozen=True):
    """What is asked for. `queues` are the names of what is worked on, one for each step."""

    verb: str
    key: str
    by: str
    request: str  # made up by who asks; the same again is not done again
    steps: tuple[Step, ...]
    queues: tuple[str, ...]
    batch: int = 0  # 0: all at once


class Place(Struct, frozen=True):
    """One step of one job."""

    job: int
    step: int


class _Open(Struct):
    """A job that is at work."""

    job: Job
    order: Order
    left: set[int] = set()  # steps that have not ended
    stopped: bool = False  # nothing more of it begins


class _Ended(Struct):
    """A job that has ended: thousands may be kept."""

    text: bytes  # packed; empty when it is kept elsewhere
    key: str
    request: str
    ended: float


class Book:
    """All jobs that are at work or ended lately. `recall` reads what was let go; None: it is lost."""

    def __init__(self, recall: Callable[[int], Job | None] = lambda _: None) -> None:
        self._recall = recall
        self._open: dict[int, _Open] = {}
        self._ended: dict[int, _Ended] = {}
        self._order: deque[int] = deque()  # of those that have ended, the oldest first
        self._working: Counter[str] = Counter()  # open jobs of each key
        self._requests: dict[tuple[str, str], int] = {}
        self._queues: dict[str, list[Place]] = {}
        self._changed: dict[int, Job] = {}

    def __iter__(self) -> Iterator[Job]:
        """All, those that have ended first."""
        ended = filter(None, map(self._result, list(self._ended)))
        return chain(ended, [kept.job for kept in self._open.values()])

    def get(self, number: int) -> Job:
        if number in self._open:
            return self._open[number].job
        job = self._result(number)
        if job is None:
            raise NotFound(
                f"there is no job {number}; results are kept {KEPT / 60:.0f} minutes: viscript job ls"
            )
        return job

    def let_go(self, number: int) -> None:
        """One that has ended is kept elsewhere, too: what came of it need not stay here."""
        ended = self._ended.get(number)
        if ended is not None:
            ended.text = b""

    def changed(self) -> list[Job]:
        """What has changed since this was asked last."""
        changed, self._changed = self._changed, {}
        return [changed[number] for number in sorted(changed)]

    def known(self, key: str, request: str) -> Job | None:
        """The job that this request has made before."""
        number = self._requests.get((key, request)) if request else None
        return self.get(number) if number is not None else None

    def restore(self, job: Job, request: str) -> list[Place]:
        """A job of an earlier daemon. What had begun goes on, and is returned; nothing more of it begins."""
        if job.ended is not None:
            self._close(job, request)
            return []
        steps = job.steps
        queues = tuple(f"id:{x.id}" if x.id is not None else f"start:{x.app}" for x in steps)
        left = {index for index, step in enumerate(steps) if step.state not in ENDED}
        order = Order(job.verb, job.key, job.by, request, tuple(steps), queues)
        kept = self._keep(job, order, left)
        for index in sorted(left):
            self._queues.setdefault(queues[index], []).append(Place(job.job, index))
        now = max([job.asked, *(step.since for step in steps)])
        self._stop(kept, now, "the daemon ended before it was begun")
        self._finish(job.job, now)
        return [Place(job.job, index) for index in sorted(kept.left)]

    def check(self, order: Order) -> None:
        """`Conflict` when it is too much."""
        if len(order.steps) > MAX_STEPS:
            raise Conflict(f"{len(order.steps)} targets, at most {MAX_STEPS} at once; select fewer")
        waiting = self._working[order.key]
        if waiting >= MAX_OPEN:
            raise Conflict(f"{waiting} jobs of this key have not ended; see: viscript job ls")

    def open(self, number: int, order: Order, now: float) -> Job:
        """A new job; `runnable` tells what of it may begin."""
        self.check(order)
        steps = list(order.steps)
        for step in steps:
            step.since = now
        job = Job(number, order.verb, "working", order.by, order.key, now, steps=steps)
        self._keep(job, order, set(range(len(steps))))
        for index, queue in enumerate(order.queues):
            if order.verb in OVERRIDING:
                self._override(queue, number, now)
            self._queues.setdefault(queue, []).append(Place(number, index))
        self._finish(number, now)  # there may be nothing to do
        return job

    def runnable(self) -> list[Place]:
        """The steps that may begin, in the order in which they were asked for."""
        heads = [places[0] for places in self._queues.values() if places]
        found: list[Place] = []
        free = {number: self._free(number) for number in {place.job for place in heads}}
        for place in sorted(heads, key=lambda place: (place.job, place.step)):
            if self.step(place).state == "waiting" and free[place.job] > 0:
                free[place.job] -= 1
                found.append(place)
        return found

    def step(self, place: Place) -> Step:
        return self._open[place.job].job.steps[place.step]

    def working(self, place: Place) -> bool:
        """Whether it has begun, and nothing has ended it since."""
        found = self._open.get(place.job)
        return found is not None and place.step in found.left

    def begin(self, place: Place, now: float) -> None:
        self._change(place, "working", now)

    def settle(
        self, place: Place, state: StepState, now: float, text: str = "", error: str = ""
    ) -> None:
        """One step has come to its end; nothing if it had before."""
        kept = self._open.get(place.job)
        if kept is None or place.step not in kept.left:
            return
        step = self.step(place)
        step.text, step.error = text, error
        self._change(place, state, now)
        self._leave(place)
        if state == "failed" and kept.order.batch:
            why = f"not begun, as {step.app} failed"
            self._stop(kept, now, why)
        self._finish(place.job, now)

    def cancel(self, number: int, by: str, now: float) -> Job:
        """Begin nothing more of it. `Conflict` when it has ended."""
        job = self.get(number)
        if job.ended is not None:
            raise Conflict(f"job {number} has ended: it is {job.state}; see: viscript job {number}")
        self._stop(self._open[number], now, f"cancelled by {by}")
        self._finish(number, now)
        return job

    def prune(self, now: float) -> list[int]:
        """Forget results that are older than `KEPT`, and the oldest of too many; returns their numbers."""
        old = []
        while self._order and self._is_old(self._ended[self._order[0]], now):
            number = self._order.popleft()
            ended = self._ended.pop(number)
            self._requests.pop((ended.key, ended.request), None)
            old.append(number)
        return old

    # Inside.

    def _result(self, number: int) -> Job | None:
        ended = self._ended.get(number)
        if ended is None:
            return None
        if not ended.text:
            return self._recall(number)
        return msgspec.msgpack.decode(ended.text, type=Job)

    def _keep(self, job: Job, order: Order, left: set[int]) -> _Open:
        kept = self._open[job.job] = _Open(job, order, left)
        self._working[order.key] += 1
        if order.request:
            self._requests[order.key, order.request] = job.job
        self._touch(job)
        return kept

    def _is_old(self, ended: _Ended, now: float) -> bool:
        return now - ended.ended >= KEPT or len(self._order) > MAX_KEPT

    def _close(self, job: Job, request: str) -> None:
        """From now on it only tells what came of it."""
        text = msgspec.msgpack.encode(job)
        self._ended[job.job] = _Ended(text, job.key, request, job.ended or job.asked)
        self._order.append(job.job)
        if request:
            self._requests[job.key, request] = job.job

    def _free(self, number: int) -> int:
        """How many steps of it may begin beside those under way."""
        kept = self._open[number]
        if not kept.order.batch:
            return len(kept.left)
        return kept.order.batch - sum(1 for s in kept.job.steps if s.state == "working")

    def _override(self, queue: str, number: int, now: float) -> None:
        """What is before it in the queue is not waited for any more."""
        for place in list(self._queues.get(queue, ())):
            if place.job != number and self._open[place.job].order.verb not in OVERRIDING:
                text = f"job {number} came in between"
                self.settle(place, "cancelled", now, text, Conflict.name)

    def _stop(self, kept: _Open, now: float, why: str) -> None:
        if kept.stopped:
            return
        kept.stopped = True
        for index in sorted(kept.left):
            place = Place(kept.job.job, index)
            if self.step(place).state == "waiting":
                self.settle(place, "cancelled", now, why)

    def _change(self, place: Place, state: StepState, now: float) -> None:
        step = self.step(place)
        step.state, step.since = state, now
        self._touch(self._open[place.job].job)

    def _leave(self, place: Place) -> None:
        kept = self._open[place.job]
        kept.left.discard(place.step)
        queue = kept.order.queues[place.step]
        places = self._queues[queue]
        places.remove(place)
        if not places:
            del self._queues[queue]

    def _finish(self, number: int, now: float) -> None:
        kept = self._open.get(number)
        if kept is None or kept.left:
            return
        kept.job.state, kept.job.ended = outcome(kept.job.steps), now
        self._touch(kept.job)
        del self._open[number]
        self._working[kept.order.key] -= 1
        if not self._working[kept.order.key]:
            del self._working[kept.order.key]
        self._close(kept.job, kept.order.request)

    def _touch(self, job: Job) -> None:
        job.version += 1
        self._changed[job.job] = job


def outcome(steps: Iterable[Step]) -> JobState:
    """What a job of these steps has come to; the worst of them counts."""
    states = {step.state for step in steps}
    worst: tuple[JobState, ...] = ("unknown", "failed", "cancelled")
    return next((state for state in worst if state in states), "done")
