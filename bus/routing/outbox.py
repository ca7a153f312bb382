"""The bounded queue of what the broker has for one session, and what gives way when it is full.

Deliveries to a subscription follow its policy; everything else must arrive or end the session.
Pure: the shell takes from the left as the transport accepts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from bus import wire

DROP_OLD = "drop_old"
DROP_NEW = "drop_new"
DISCONNECT = "disconnect"
POLICIES = (DROP_OLD, DROP_NEW, DISCONNECT)


@dataclass(slots=True, eq=False)
class Drops:
    """Of one subscription: its policy and how many messages it lost since the last GAP."""

    sid: int
    policy: str
    lost: int = 0


class Outgoing:
    """One message for a session; plain slots and a size counted once, because every message is one."""

    __slots__ = ("body", "count", "drops", "head", "size")

    def __init__(
        self, head: bytes, body: bytes | None = None, drops: Drops | None = None, count: int = 1
    ) -> None:
        self.head = head
        self.body = body
        self.drops = drops  # None: must not be dropped
        self.count = count  # messages in the body
        self.size = len(head) if body is None else len(head) + len(body)


@dataclass(slots=True, eq=False)
class Budget:
    """Bytes that the outboxes of one key may hold together, however many sessions it opens."""

    max_bytes: int
    used: int = 0


class Outbox:
    """Queue of `Outgoing`, bounded in messages and bytes, and by the budget it shares."""

    def __init__(self, max_messages: int, max_bytes: int, budget: Budget | None = None) -> None:
        self._budget = budget or Budget(max_bytes)
        self._queue: deque[Outgoing] = deque()
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages = 0
        self._bytes = 0
        self._gaps: dict[Outgoing, tuple[Drops, int]] = {}  # put in by the last `_drop_old`

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, outgoing: Outgoing) -> bool:
        """Queue one, dropping by policy when full; False when the session has to end instead."""
        drops = outgoing.drops
        if self._full(outgoing):
            if drops is None or drops.policy == DISCONNECT:
                return False
            if drops.policy == DROP_NEW:
                drops.lost += outgoing.count
                return True
            self._drop_old()
            if self._full(outgoing):  # what fills it must not be dropped
                return False
        if drops is not None and drops.lost:
            self._append(Outgoing(wire.encode(wire.Gap(drops.sid, drops.lost))))
            drops.lost = 0
        self._append(outgoing)
        return True

    @property
    def next(self) -> Outgoing:
        return self._queue[0]

    def pop(self) -> Outgoing:
        outgoing = self._queue.popleft()
        self._account(-outgoing.count, -outgoing.size)
        return outgoing

    def clear(self) -> None:
        self._queue.clear()
        self._gaps.clear()
        self._account(-self._messages, -self._bytes)

    def _full(self, outgoing: Outgoing) -> bool:
        return (
            self._bytes + outgoing.size > self._max_bytes
            or self._budget.used + outgoing.size > self._budget.max_bytes
            or self._messages + outgoing.count > self._max_messages
        )

    def _append(self, outgoing: Outgoing) -> None:
        self._queue.append(outgoing)
        self._account(outgoing.count, outgoing.size)

    def _account(self, messages: int, size: int) -> None:
        self._messages += messages
        self._bytes += size
        self._budget.used += size

    def _drop_old(self) -> None:
        """Drop the oldest droppable half at once: one by one would cost a scan for each."""
        kept: deque[Outgoing] = deque()
        lost: dict[Drops, int] = {}
        while self._queue:
            old = self._queue.popleft()
            told = self._gaps.get(old)
            if told is not None:  # of those who do not even read: told again below, in one
                lost[told[0]] = lost.get(told[0], 0) + told[1]
                self._account(-1, -old.size)
                continue
            low = self._bytes <= self._max_bytes // 2 and self._messages <= self._max_messages // 2
            if low or old.drops is None or old.drops.policy != DROP_OLD:
                kept.append(old)
                continue
            lost[old.drops] = lost.get(old.drops, 0) + old.count
            self._account(-old.count, -old.size)
        self._queue = kept
        self._gaps = {}
        for drops, count in lost.items():
            gap = Outgoing(wire.encode(wire.Gap(drops.sid, count)))
            self._gaps[gap] = drops, count
            self._queue.appendleft(gap)
            self._account(1, gap.size)
