"""One named consumer: what to deliver next, what is under way, what has to be delivered again.

Every record up to the cursor is settled unless it is unsettled: under way (due when nobody settles it in
time), waiting (due when its nak's delay is over), ready to be delivered again, or to be buried because it
was delivered too often. Sequences that retention took are forgotten when they are looked for. Pure: times
are monotonic seconds and passed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from bus.signals import ConsumerConfig, ConsumerInfo
from bus.topics.work import ConsumerState, Fetched, Record, StoredConsumer

ACTS = ("ack", "nak", "wip", "term")
BURIED = -1  # stands for the count of deliveries in the stored state


@dataclass(slots=True)
class _Unsettled:
    deliveries: int
    due: float | None  # None: ready, or to be buried


class Consumer:
    """The state of one consumer; `number` is the store's."""

    def __init__(self, stored: StoredConsumer, now: float) -> None:
        self.number = stored.number
        self.config = stored.config
        self.cursor = stored.state.cursor
        self.redelivered = 0  # since the broker's start, as is `dead`
        self.dead = 0
        self._unsettled: dict[int, _Unsettled] = {}
        self._due: list[tuple[float, int]] = []  # heap; entries may be out of date
        self._ready: set[int] = set()  # to be delivered again
        self._doomed: set[int] = set()  # to be buried
        for seq, deliveries in stored.state.unsettled.items():
            entry = self._unsettled[seq] = _Unsettled(max(deliveries, 0), None)
            if deliveries == BURIED:
                self._doomed.add(seq)
            else:  # whoever works on it may yet say so
                self._await(seq, entry, now + self.config.ack_wait)

    @property
    def floor(self) -> int:
        """All up to this are settled."""
        return min(self._unsettled, default=self.cursor + 1) - 1

    @property
    def state(self) -> ConsumerState:
        unsettled = {
            seq: BURIED if seq in self._doomed else entry.deliveries
            for seq, entry in self._unsettled.items()
        }
        return ConsumerState(self.cursor, unsettled)

    @property
    def doomed(self) -> Sequence[int]:
        """Sequences to publish to the dead-letter subject and then to `forget`."""
        return sorted(self._doomed)

    @property
    def next_due(self) -> float | None:
        """When `wake` has something to do."""
        return self._due[0][0] if self._due else None

    def info(self, last: int) -> ConsumerInfo:
        """What people are told; `last` is the topic's last sequence."""
        return ConsumerInfo(
            config=self.config, floor=self.floor, inflight=len(self._unsettled),
            waiting=max(0, last - self.cursor), redelivered=self.redelivered, dead=self.dead,
        )  # fmt: skip

    def configure(self, config: ConsumerConfig) -> None:
        """Take over what may change of a consumer that has begun; holds from the next delivery on."""
        self.config = config

    def wanted(self, n: int) -> tuple[Sequence[int], int]:
        """What `n` more deliveries would be: sequences again, the lowest first, and how many new ones."""
        again = heapq.nsmallest(n, self._ready)
        fresh = min(n - len(again), self.config.max_inflight - len(self._unsettled))
        return again, max(0, fresh)

    def receive(self, fetched: Fetched) -> list[Record]:
        """What the store found for `wanted`, to be delivered in this order; `deliver` each."""
        found = {record.seq for record in fetched.again}
        for seq in fetched.asked:
            if seq not in found:
                self.forget(seq)
        return [*(r for r in fetched.again if r.seq in self._ready), *fetched.fresh]

    def deliver(self, seq: int, now: float) -> int:
        """One record is on its way; how often it has been by now."""
        entry = self._unsettled.get(seq)
        if entry is None:
            entry = self._unsettled[seq] = _Unsettled(0, None)
            self.cursor = max(self.cursor, seq)
        else:
            self._ready.discard(seq)
            self.redelivered += 1
        entry.deliveries += 1
        self._await(seq, entry, now + self.config.ack_wait)
        return entry.deliveries

    def skip(self, cursor: int) -> None:
        """There is nothing for this consumer up to `cursor`."""
        self.cursor = max(self.cursor, cursor)

    def settle(self, seq: int, act: str, delay: float, now: float) -> None:
        """Do one of `ACTS` to a record; nothing when it is not under way (any more)."""
        entry = self._unsettled.get(seq)
        if entry is None or seq in self._doomed:
            return
        if act == "ack":
            self._settled(seq)
        elif act == "term":
            self._doom(seq, entry)
        elif entry.due is None:
            return  # it is ready already
        elif act == "wip":
            self._await(seq, entry, now + self.config.ack_wait)
        elif self._exhausted(entry):
            self._doom(seq, entry)
        elif delay > 0:
            self._await(seq, entry, now + delay)
        else:
            self._make_ready(seq, entry)

    def wake(self, now: float) -> bool:
        """Take back what was not settled in time; whether there was any."""
        changed = False
        while self._due and self._due[0][0] <= now:
            due, seq = heapq.heappop(self._due)
            entry = self._unsettled.get(seq)
            if entry is None or entry.due != due:
                continue
            changed = True
            if self._exhausted(entry):
                self._doom(seq, entry)
            else:
                self._make_ready(seq, entry)
        return changed

    def forget(self, seq: int) -> None:
        """The record is gone: retention took it."""
        self._settled(seq)

    def bury(self, seq: int) -> None:
        """The record stands at the dead-letter subject now."""
        if seq in self._doomed:
            self.dead += 1
            self._settled(seq)

    def _exhausted(self, entry: _Unsettled) -> bool:
        return 0 < self.config.max_deliver <= entry.deliveries

    def _await(self, seq: int, entry: _Unsettled, due: float) -> None:
        entry.due = due
        heapq.heappush(self._due, (due, seq))
        if len(self._due) > 2 * len(self._unsettled) + 64:  # settled ones leave theirs behind
            self._due = [(e.due, s) for s, e in self._unsettled.items() if e.due is not None]
            heapq.heapify(self._due)

    def _make_ready(self, seq: int, entry: _Unsettled) -> None:
        entry.due = None
        self._ready.add(seq)

    def _doom(self, seq: int, entry: _Unsettled) -> None:
        entry.due = None
        self._ready.discard(seq)
        self._doomed.add(seq)

    def _settled(self, seq: int) -> None:
        self._unsettled.pop(seq, None)
        self._ready.discard(seq)
        self._doomed.discard(seq)
