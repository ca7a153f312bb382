"""The bounded queue of what the broker has for one session, and what gives way when it is full.

Deliveries to a subscription follow its policy; everything else must arrive or end the session. A session
that counts its deliveries has an outbox in which those without credit wait, and the rest passes them.
Pure: the shell takes `next`, and says `pop` when the transport has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bus import wire

DROP_OLD = "drop_old"
DROP_NEW = "drop_new"
DISCONNECT = "disconnect"
POLICIES = (DROP_OLD, DROP_NEW, DISCONNECT)
MAX_CREDIT = 1 << 40  # where sums of grants end


@dataclass(slots=True, eq=False)
class Drops:
    """Of one subscription: its policy, and what came and was lost of what it was to get."""

    sid: int
    policy: str
    lost: int = 0  # since the last GAP
    count: int = 0  # of messages that it was to get
    over: bool = False  # it has ended: what waits for credit is for nobody


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
    """Bytes that what belongs to one key may hold together, however many sessions it opens."""

    max_bytes: int
    used: int = 0


class Outbox:
    """Queue of `Outgoing`, bounded in messages and bytes, and by the budget it shares."""

    def __init__(
        self,
        max_messages: int,
        max_bytes: int,
        budget: Budget | None = None,
    ) -> None:
        self.on_loss: Callable[[int], None] = lambda _: None  # hears how many were just dropped
        self.messages = 0  # that wait; each of a batch counts
        self.bytes = 0
        self.lost = 0  # messages dropped so far
        self._budget = budget or Budget(max_bytes)
        self._queue: deque[Outgoing] = deque()
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._gaps: dict[Outgoing, tuple[Drops, int]] = {}  # put in by the last `_drop_old`

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, outgoing: Outgoing) -> bool:
        """Queue one, dropping by policy when full; False when the session has to end instead."""
        drops, size, count = outgoing.drops, outgoing.size, outgoing.count
        if (  # as `has_room`; here and below written out, because every message comes this way
            self.bytes + size > self._max_bytes
            or self._budget.used + size > self._budget.max_bytes
            or self.messages + count > self._max_messages
        ):
            if drops is None:
                if not self.has_room_beside(size, count):
                    return False
            elif drops.policy == DROP_NEW:
                drops.count += count
                drops.lost += count
                self._lose(count)
                return True
            elif drops.policy == DISCONNECT:
                return False
            else:
                self._drop_old()
                if not self.has_room(size, count):  # what fills it must not be dropped
                    return False
        if drops is not None:
            if drops.lost:
                gap = wire.Gap(drops.sid, drops.lost, drops.count - drops.lost + 1)
                self._append(Outgoing(wire.encode(gap)))
                drops.lost = 0
            drops.count += count
        self._queue.append(outgoing)
        self.messages += count
        self.bytes += size
        self._budget.used += size
        return True

    def has_room_beside(self, size: int, count: int) -> bool:
        """Whether what is no delivery fits: a quarter more than deliveries may fill.

        Else who has not the credit or the time for all its deliveries, which is what policies are for,
        would be ended by the next answer.
        """
        return (
            self.bytes + size <= self._max_bytes + self._max_bytes // 4
            and self._budget.used + size <= self._budget.max_bytes + self._max_bytes // 4
            and self.messages + count <= self._max_messages + self._max_messages // 4
        )

    def has_room(self, size: int, count: int) -> bool:
        """Whether `count` more messages of `size` bytes together fit."""
        return (
            self.bytes + size <= self._max_bytes
            and self._budget.used + size <= self._budget.max_bytes
            and self.messages + count <= self._max_messages
        )

    @property
    def has_credit(self) -> bool:
        """Whether deliveries may leave at all."""
        return True

    def would_send(self, messages: int, size: int) -> bool:
        """Whether a delivery would leave when all that waits has left, and so many messages more."""
        return messages >= 0 <= size

    @property
    def next(self) -> Outgoing | None:
        """What may leave now."""
        return self._queue[0] if self._queue else None

    def pop(self) -> Outgoing:
        """Take out `next`."""
        outgoing = self._queue.popleft()
        self._account(-outgoing.count, -outgoing.size)
        return outgoing

    def bundle(self) -> Outgoing:
        """Take out `next`, and with it those after it that fit into one message."""
        first = self.pop()
        parts, count = [first.head, first.body], first.count
        if first.size <= wire.BUNDLED:
            more = self.next
            while (
                more is not None and more.size <= wire.BUNDLED and len(parts) < 2 * wire.MAX_BUNDLE
            ):
                self.pop()
                parts += (more.head, more.body)
                count += more.count
                more = self.next
        if len(parts) == 2:
            return first
        return Outgoing(*wire.pack_bundle(wire.BundleDelivery, parts), count=count)

    def purge(self) -> None:
        """Take out what waits for subscriptions that are over."""
        kept: deque[Outgoing] = deque()
        for outgoing in self._take_all():
            if outgoing.drops is not None and outgoing.drops.over:
                self._account(-outgoing.count, -outgoing.size)
            else:
                kept.append(outgoing)
        self._queue = kept

    def clear(self) -> None:
        self._queue.clear()
        self._gaps.clear()
        self._account(-self.messages, -self.bytes)

    def _append(self, outgoing: Outgoing) -> None:
        self._queue.append(outgoing)
        self._account(outgoing.count, outgoing.size)

    def _account(self, messages: int, size: int) -> None:
        self.messages += messages
        self.bytes += size
        self._budget.used += size

    def _lose(self, messages: int) -> None:
        self.lost += messages
        self.on_loss(messages)

    def _take_all(self) -> deque[Outgoing]:
        """All that waits, in order."""
        queue, self._queue = self._queue, deque()
        return queue

    def _drop_old(self) -> None:
        """Drop the oldest droppable half at once: one by one would cost a scan for each."""
        kept: deque[Outgoing] = deque()
        lost: dict[Drops, int] = {}
        left: dict[Drops, int] = {}
        told_before = 0
        for old in self._take_all():
            told = self._gaps.get(old)
            if told is not None:  # of those who do not even read: told again below, in one
                lost[told[0]] = lost.get(told[0], 0) + told[1]
                told_before += told[1]
                self._account(-1, -old.size)
                continue
            low = self.bytes <= self._max_bytes // 2 and self.messages <= self._max_messages // 2
            if low or old.drops is None or old.drops.policy != DROP_OLD:
                kept.append(old)
                if old.drops is not None:
                    left[old.drops] = left.get(old.drops, 0) + old.count
                continue
            lost[old.drops] = lost.get(old.drops, 0) + old.count
            self._account(-old.count, -old.size)
        self._queue = kept
        self._gaps = {}
        for drops, count in lost.items():
            # What waits of a subscription is the end of all it was to get, and the lost came before.
            first = drops.count - left.get(drops, 0) - count + 1
            gap = Outgoing(wire.encode(wire.Gap(drops.sid, count, first)))
            self._gaps[gap] = drops, count
            self._queue.appendleft(gap)
            self._account(1, gap.size)
        self._lose(sum(lost.values()) - told_before)


class CreditedOutbox(Outbox):
    """An outbox whose deliveries leave only as far as they were granted: messages and bytes of bodies.

    A GAP keeps its place among the deliveries that wait.
    """

    def __init__(
        self,
        credit: wire.Grant,
        max_messages: int,
        max_bytes: int,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(max_messages, max_bytes, budget)
        self._m = credit.m
        self._b = min(credit.b, MAX_CREDIT)
        self._held: deque[Outgoing] = deque()  # older than all deliveries in the queue

    def __len__(self) -> int:
        return len(self._held) + len(self._queue)

    def grant(self, messages: int, size: int) -> None:
        self._m = min(self._m + messages, MAX_CREDIT)
        self._b = min(self._b + size, MAX_CREDIT)

    @property
    def has_credit(self) -> bool:
        return self._m > 0 and self._b > 0

    def would_send(self, messages: int, size: int) -> bool:
        # Counting what is no delivery as well, and heads: rather too careful than stuck.
        return self._m > self.messages + messages and self._b > self.bytes + size

    @property
    def next(self) -> Outgoing | None:
        held, queue = self._held, self._queue
        if self._m > 0 and self._b > 0:
            return self._first(held) or self._first(queue)
        while queue:
            first = queue[0]
            if first.drops is None and not (held and _is_gap(first)):
                return first
            held.append(queue.popleft())
        return None

    def _first(self, queue: deque[Outgoing]) -> Outgoing | None:
        """The first of `queue` that is for somebody."""
        while queue:
            first = queue[0]
            if first.drops is None or not first.drops.over:
                return first
            self._account(-first.count, -first.size)
            queue.popleft()
        return None

    def pop(self) -> Outgoing:
        credited = self._m > 0 and self._b > 0
        outgoing = (self._held if credited and self._held else self._queue).popleft()
        self._account(-outgoing.count, -outgoing.size)
        if outgoing.drops is not None:
            self._m -= outgoing.count
            self._b -= len(outgoing.body or b"")
        return outgoing

    def clear(self) -> None:
        self._held.clear()
        super().clear()

    def _take_all(self) -> deque[Outgoing]:
        queue, self._held, self._queue = self._held, deque(), self._queue
        queue.extend(self._queue)
        self._queue = deque()
        return queue


_GAP = wire.encode(wire.Gap(0, 0))[:4]


def _is_gap(outgoing: Outgoing) -> bool:
    return outgoing.head.startswith(_GAP)
