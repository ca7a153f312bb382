"""Queue groups: each message goes to one member, in turn among those that have room.

A member has room while its window is not used up, its outbox takes more and its session has credit. With
nobody that has room a message waits in the group's own queue, whose oldest give way when it is full; the
next member that is served is told how many. Delivery is at most once: what a member has got is not given to
another when it leaves.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from itertools import chain, islice

from bus import subjects, wire
from bus.routing.outbox import Budget, Outgoing
from bus.routing.peers import Session, Subscription
from bus.routing.sessions import Sessions

RETRY = 0.05  # seconds after which members whose outbox was full are looked at again
LOOKS = 256  # of them at a time
_KEPT = 128  # bytes that the broker needs to keep one message, beside its texts and its body
_HEAD = 512  # bytes that the head of a delivery will hardly need


@dataclass(frozen=True, slots=True)
class _Message:
    sender: str
    subject: str
    body: bytes

    @property
    def size(self) -> int:
        return _KEPT + len(self.subject) + len(self.sender) + len(self.body)


@dataclass(slots=True)
class _Load:
    """Of what is being given out, the part of one session."""

    messages: int = 0
    size: int = 0


_NO_LOAD = _Load()


@dataclass(eq=False)
class _Group:
    """Those who subscribed to one pattern under one name."""

    pattern: str
    name: str
    payer: str  # the key of a member, whose budget what waits is booked on
    keys: Counter[str] = field(default_factory=Counter)  # of the members
    # Whose turn it is comes first. Dictionaries, so that one of many is taken out in no time.
    free: OrderedDict[Subscription, None] = field(default_factory=OrderedDict)
    stuck: dict[Subscription, None] = field(default_factory=dict)  # had no room when last looked at
    waiting: deque[_Message] = field(default_factory=deque)
    size: int = 0  # of what waits
    count: int = 0  # messages that came so far
    lost: int = 0  # since the last GAP; older than all that waits


class Groups:
    """The queue groups of one broker."""

    def __init__(self, sessions: Sessions) -> None:
        self.any = False  # whether there are some: a field, because every message asks
        self._sessions = sessions
        self._groups: dict[tuple[str, str], _Group] = {}
        self._tree: subjects.SubjectTree[_Group] = subjects.SubjectTree(_anybody)
        self._budgets: dict[str, Budget] = {}  # bytes of what waits, by payer
        self._congested: dict[_Group, None] = {}  # an outbox was full
        self._retry: float | None = None
        sessions.granted.append(self._granted)
        sessions.changed.append(lambda _: self._tree.forget())

    def join(self, member: Subscription) -> None:
        name = member.pattern, member.group
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(*name, payer=member.session.key)
            self._tree.add(member.pattern, group)
            self.any = True
        self._tree.forget()
        group.keys[member.session.key] += 1
        group.free[member] = None
        self._serve(group)

    def leave(self, member: Subscription) -> None:
        group = self._groups[member.pattern, member.group]
        (group.stuck if member in group.stuck else group.free).pop(member)
        key, size = member.session.key, group.size
        group.keys[key] -= 1
        if not group.keys[key]:
            del group.keys[key]
        self._tree.forget()
        if not group.keys:
            self._book(group, -size)
            self._congested.pop(group, None)
            self._tree.remove(group.pattern, group)
            del self._groups[group.pattern, group.name]
            self.any = bool(self._groups)
        elif group.payer not in group.keys:
            self._book(group, -size)
            group.payer = next(iter(group.keys))
            self._book(group, size)

    def publish(self, sender: str, subject: str, bodies: list[bytes]) -> None:
        """Give the messages to each group that listens."""
        for group in self._tree.match(subject):
            group.count += len(bodies)
            if len(bodies) == 1 and not group.waiting and not group.lost:  # no detour
                member = self._next(group, subject, len(bodies[0]), {})
                if member is not None:
                    member.used += 1
                    self._deliver(member, sender, subject, bodies)
                    continue
            for body in bodies:
                self._wait(group, _Message(sender, subject, body))
            self._serve(group)

    def listens(self, subject: str) -> bool:
        return bool(self._tree.match(subject))

    def give_back(self, member: Subscription, messages: int) -> None:
        """The member has done with some of what it got."""
        member.used = max(0, member.used - messages)
        self._look_again(member)

    @property
    def next_deadline(self) -> float | None:
        return self._retry

    def handle_timer(self, now: float) -> None:
        """Look again at members whose outbox was full, some at a time."""
        looks = LOOKS
        for group in list(islice(self._congested, looks)):
            del self._congested[group]
            for member in list(islice(group.stuck, looks)):
                del group.stuck[member]
                group.free[member] = None
                looks -= 1
            self._serve(group)
            if looks <= 0:
                if group.stuck:
                    self._congested[group] = None
                break
        self._retry = now + RETRY if self._congested else None

    def _granted(self, session: Session) -> None:
        for member in list(session.subscriptions.values()):
            if member.group:
                self._look_again(member)

    def _look_again(self, member: Subscription) -> None:
        group = self._groups[member.pattern, member.group]
        if member in group.stuck:
            del group.stuck[member]
            group.free[member] = None
            self._serve(group)

    def _serve(self, group: _Group) -> None:
        """Give out what waits, as far as members have room; a member's share in few deliveries."""
        shares: dict[Subscription, list[_Message]] = {}
        loads: dict[Session, _Load] = {}
        while group.waiting:
            message = group.waiting[0]
            member = self._next(group, message.subject, message.size, loads)
            if member is None:
                if _anybody(group, message.subject):
                    break
                self._drop(group)  # the last who might have had it is gone
                continue
            if group.lost:
                self._tell_loss(group, member)
            shares.setdefault(member, []).append(message)
            load = loads.setdefault(member.session, _Load())
            load.messages += 1
            load.size += message.size + _HEAD
            member.used += 1
            group.waiting.popleft()
            self._book(group, -message.size)
        for member, share in shares.items():
            for run in _runs(share, self._sessions.limits):
                bodies = [message.body for message in run]
                self._deliver(member, run[0].sender, run[0].subject, bodies)

    def _next(
        self, group: _Group, subject: str, size: int, loads: dict[Session, _Load]
    ) -> Subscription | None:
        """The member whose turn it is to get one more message, beside the `loads`."""
        for _ in range(len(group.free)):
            member, _ = group.free.popitem(last=False)
            if not self._has_room(group, member, size, loads.get(member.session, _NO_LOAD)):
                group.stuck[member] = None
                continue
            group.free[member] = None
            if member.session.rights.delivers(subject):
                return member
        return None

    def _has_room(self, group: _Group, member: Subscription, size: int, load: _Load) -> bool:
        if member.window and member.used >= member.window:
            return False  # until it gives back
        outbox = member.session.outbox
        if not outbox.has_credit:
            return False  # until it is granted some
        fits = outbox.has_room(load.size + size + _HEAD, load.messages + 1)
        if fits and outbox.would_send(load.messages, load.size):
            return True
        self._congested[group] = None
        if self._retry is None:
            self._retry = 0.0
        return False

    def _deliver(
        self, member: Subscription, sender: str, subject: str, bodies: list[bytes]
    ) -> None:
        n = len(bodies)
        head = wire.encode(wire.Delivery(member.drops.sid, subject, sender, n))
        body = bodies[0] if n == 1 else wire.join(bodies)
        lost = member.drops.lost
        self._sessions.queue(member.session, Outgoing(head, body, member.drops, n))
        if member.drops.lost > lost:  # other sessions of its key took the last room meanwhile
            member.used -= n

    def _wait(self, group: _Group, message: _Message) -> None:
        limits = self._sessions.limits
        group.waiting.append(message)
        self._book(group, message.size)
        while group.waiting and (
            len(group.waiting) > limits.group_messages
            or group.size > limits.group_bytes
            or self._budgets[group.payer].used > 2 * limits.group_bytes
        ):
            self._drop(group)

    def _drop(self, group: _Group) -> None:
        """Lose the oldest that waits."""
        self._book(group, -group.waiting.popleft().size)
        group.lost += 1

    def _tell_loss(self, group: _Group, member: Subscription) -> None:
        first = group.count - len(group.waiting) - group.lost + 1
        gap = wire.Gap(member.drops.sid, group.lost, first)
        member.session.outbox.lost += group.lost
        group.lost = 0
        self._sessions.send(member.session, wire.encode(gap))

    def _book(self, group: _Group, size: int) -> None:
        group.size += size
        budget = self._budgets.setdefault(
            group.payer, Budget(2 * self._sessions.limits.group_bytes)
        )
        budget.used += size
        if not budget.used:
            del self._budgets[group.payer]


def _anybody(group: _Group, subject: str) -> bool:
    """Whether no deny of its key withholds the subject from some member."""
    members = chain(group.free, group.stuck)
    return any(member.session.rights.delivers(subject) for member in members)


def _runs(messages: list[_Message], limits: wire.Limits) -> list[list[_Message]]:
    """The messages in order, cut where one delivery cannot hold the next as well."""
    runs: list[list[_Message]] = []
    size = 0
    for message in messages:
        last = runs[-1][-1] if runs else None
        size += message.size
        if (
            last is None
            or (last.sender, last.subject) != (message.sender, message.subject)
            or len(runs[-1]) >= limits.batch
            or size > limits.payload
        ):
            runs.append([])
            size = message.size
        runs[-1].append(message)
    return runs
