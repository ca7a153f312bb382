"""Requests on their way through the broker: who waits for what, who was asked, and until when.

A `Call` is what one session waits for, known by the id it chose. An `Errand` is what one worker is
asked, known by its handle, which is for that worker and one answer. For a plain request both are the
same object. Handles of two starts of the broker are far apart, so that a late answer to the last one
meets no request of this.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TypeAlias

from bus.errors import RemoteProtocolError
from bus.routing.peers import Session

_STALE = 1024  # deadlines of answered requests that may stay in the heap, beside as many as wait
ONE_REPLY = -1  # the window of a request that wants no stream

Line: TypeAlias = "dict[Errand, None]"  # those who wait for a worker, the first first
Identity = tuple[
    str, str, str | None, str
]  # key, subject, `to` and `idem`: what makes a request the same


@dataclass(slots=True, eq=False)
class Desk:
    """What one session has under way, as the one who asks and as the one who is asked."""

    session: Session
    open: bool = True
    calls: dict[int, Call] = field(default_factory=dict)  # by the id that the session chose
    errands: dict[int, Errand] = field(default_factory=dict)  # by handle; its load
    offers: dict[str, Offer] = field(default_factory=dict)  # by pattern


@dataclass(slots=True, eq=False)
class Offer:
    """One session's offer to answer requests to `pattern`, and what became of them."""

    desk: Desk
    pattern: str
    line: Line  # of all offers of this pattern
    own: Line = field(default_factory=dict)  # of this one alone
    name: str = ""
    ver: str = ""
    desc: str = ""
    limit: int = 0  # requests at once; 0: none
    inflight: int = 0
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0

    @property
    def has_room(self) -> bool:
        return self.limit == 0 or self.inflight < self.limit


class Call:
    """What one session asked and is owed an answer to."""

    __slots__ = ("caller", "deadline", "over", "ref", "subject")

    def __init__(self, caller: Desk, ref: int, subject: str, deadline: float) -> None:
        self.caller = caller
        self.ref = ref
        self.subject = subject
        self.deadline = deadline
        self.over = False


class Errand(Call):
    """What one worker is asked: a plain request, or one of an `owner` to whom the answer belongs."""

    __slots__ = (
        "began", "body", "handle", "held", "lines", "offer", "owner", "to", "window", "worker",
    )  # fmt: skip

    def __init__(
        self,
        caller: Desk,
        ref: int,
        subject: str,
        deadline: float,
        to: str | None = None,
        window: int = ONE_REPLY,
        owner: Round | Promise | None = None,
    ) -> None:
        self.caller = caller
        self.ref = ref
        self.subject = subject
        self.deadline = deadline
        self.over = False
        self.to = to
        self.window = window  # chunks that may still come
        self.owner = owner
        self.worker: Desk | None = None
        self.offer: Offer | None = None  # by which the worker was found
        self.handle = 0
        self.began = 0.0
        self.lines: tuple[Line, ...] = ()  # in which it waits
        self.body: bytes | None = None  # kept while it may be sent (again)
        self.held = 0  # bytes, of its key's holdings


class Batch(Errand):
    """`n` plain requests of one caller that one worker was handed as one, ids and handles in a row.

    They are one object for as long as they fare alike: `Handles.take_apart` makes each an errand.
    """

    __slots__ = ("left", "n")

    def __init__(self, caller: Desk, ref: int, subject: str, deadline: float, n: int) -> None:
        super().__init__(caller, ref, subject, deadline)
        self.n = n
        self.left = n  # not answered yet

    def has(self, handle: int, n: int) -> bool:
        """Whether these `n` handles are its own and unanswered."""
        errands = self.worker.errands if self.worker is not None else {}
        return all(errands.get(each) is self for each in range(handle, handle + n))


class Round(Call):
    """A request to everybody who serves its subject."""

    __slots__ = ("errands", "held")

    def __init__(self, caller: Desk, ref: int, subject: str, deadline: float) -> None:
        super().__init__(caller, ref, subject, deadline)
        self.errands: dict[Errand, None] = {}  # not answered yet
        self.held = 0


class Repeat(Call):
    """One of those who wait for the same reply."""

    __slots__ = ("promise",)

    def __init__(self, caller: Desk, ref: int, deadline: float, promise: Promise) -> None:
        super().__init__(caller, ref, promise.errand.subject, deadline)
        self.promise = promise


class Promise:
    """The one reply to a request that may be repeated; outlives the session that asked first."""

    __slots__ = ("deadline", "errand", "identity", "over", "repeats")

    def __init__(self, identity: Identity, errand: Errand) -> None:
        self.identity = identity
        self.errand = errand
        self.deadline = errand.deadline  # the latest of those who asked
        self.over = False
        self.repeats: dict[Repeat, None] = {}


class Handles:
    """The calls that wait for an answer, and their deadlines in monotonic seconds."""

    def __init__(self, epoch: int) -> None:
        self._deadlines: list[tuple[float, int, Call | Promise]] = []  # heap
        self._order = itertools.count()
        self._next = (epoch & 0x7FFF_FFFF_FFFF) << 15 | 1
        self._open = 0
        self._room = (
            _STALE  # deadlines that may be there before those of the answered are cleared out
        )

    def __len__(self) -> int:
        return self._open

    def take(self, n: int = 1) -> int:
        """The first of `n` handles in a row that no other request has or had."""
        first = self._next
        self._next += n
        return first

    def open(self, call: Call, n: int = 1) -> None:
        """The caller waits from now on; for the `n` of a batch."""
        if n == 1:
            call.caller.calls[call.ref] = call
        else:
            call.caller.calls.update(dict.fromkeys(range(call.ref, call.ref + n), call))
        call.caller.session.inflight += n
        self._open += n
        heapq.heappush(self._deadlines, (call.deadline, next(self._order), call))
        if len(self._deadlines) > self._room:
            self._clear_out()

    def close(self, call: Call) -> None:
        """The caller waits no more."""
        call.over = True
        del call.caller.calls[call.ref]
        call.caller.session.inflight -= 1
        self._open -= 1

    def close_some(self, batch: Batch, handle: int, n: int) -> int:
        """So many of a batch, from this handle on, are answered; gives the first one's id."""
        ref = batch.ref + handle - batch.handle
        worker, caller = batch.worker, batch.caller
        for offset in range(n):
            if worker is not None:
                del worker.errands[handle + offset]
            del caller.calls[ref + offset]
        caller.session.inflight -= n
        self._open -= n
        batch.left -= n
        batch.over = batch.left == 0
        return ref

    def take_apart(self, batch: Batch) -> None:
        """Make each that is not answered an errand of its own."""
        batch.over = True
        worker, calls = batch.worker, batch.caller.calls
        for offset in range(batch.n):
            ref, handle = batch.ref + offset, batch.handle + offset
            if calls.get(ref) is not batch:
                continue
            errand = calls[ref] = Errand(batch.caller, ref, batch.subject, batch.deadline)
            errand.worker, errand.offer, errand.began = worker, batch.offer, batch.began
            errand.handle = handle
            if worker is not None:
                worker.errands[handle] = errand
            heapq.heappush(self._deadlines, (errand.deadline, next(self._order), errand))

    def take_all_apart(self, desk: Desk) -> None:
        """All batches that the session asked or was asked."""
        for call in {*desk.calls.values(), *desk.errands.values()}:
            if isinstance(call, Batch):
                self.take_apart(call)

    def remind(self, due: Promise) -> None:
        """Have `overdue` give it when its present deadline has passed, unless it is over by then."""
        heapq.heappush(self._deadlines, (due.deadline, next(self._order), due))
        if len(self._deadlines) > self._room:
            self._clear_out()

    def _clear_out(self) -> None:
        """What is over leaves its deadline behind, and that may be a day away."""
        self._deadlines = [d for d in self._deadlines if not d[2].over and d[2].deadline == d[0]]
        heapq.heapify(self._deadlines)
        self._room = 2 * len(self._deadlines) + _STALE

    def overdue(self, now: float) -> list[Call | Promise]:
        """What was to be answered by now and was not."""
        found = []
        while self._deadlines and self._deadlines[0][0] <= now:
            due = heapq.heappop(self._deadlines)[2]
            if due.over or due.deadline > now:
                continue
            if isinstance(due, Batch):
                self.take_apart(due)  # they are the next to be found
            else:
                found.append(due)
        return found

    @property
    def next_deadline(self) -> float | None:
        return self._deadlines[0][0] if self._deadlines else None


class Holdings:
    """Bytes that the broker keeps for requests of one key, however many sessions it opens."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, key: str, size: int) -> None:
        """Count them; `RemoteProtocolError` 429 when they are too many."""
        held = self._held.get(key, 0) + size
        if held > self._limit:
            problem = f"requests of this key that wait hold {self._limit} bytes already"
            raise RemoteProtocolError(429, "limit", problem)
        self._held[key] = held

    def free(self, key: str, size: int) -> None:
        held = self._held[key] - size
        if held:
            self._held[key] = held
        else:
            del self._held[key]
