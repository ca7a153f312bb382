"""What a client has for the broker: commands in their order, like ones in a row as one. Pure."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any

from msgspec import Struct

from bus import subjects, wire
from bus.errors import LocalProtocolError, RemoteProtocolError

# A batch holds so many bytes, where each body counts some more than it has; so one measure bounds both.
BATCH_ROOM = 128 << 10
BODY_COST = BATCH_ROOM // wire.MAX_BATCH
# So many batches of other subjects wait before a publisher has to let them leave.
MAX_WAITING = 64
# Of requests, replies and stores: half of what 64 callers at once have under way, so that both ends and the
# broker always have something to do (measured with benchmarks/bus.py; ADR 11).
BATCH_ASKED = 32
MAX_BUFFERED = 8 << 20  # bytes that wait for the transport before publishers have to
DEFAULT_PAYLOAD = 1 << 20  # bytes; until WELCOME tells the broker's own limit

# What makes commands alike: how to make one of `n` from the id `first` on, and what else is in it.
Kind = tuple[Callable[..., wire.Command], *tuple[Any, ...]]


def plain_request(first: int, n: int, subject: str, deadline: int) -> wire.Command:
    return wire.Request(first, subject, deadline, n=n)


def plain_reply(first: int, n: int) -> wire.Command:
    return wire.Reply(first, n=n)


def plain_store(first: int, n: int, subject: str) -> wire.Command:
    return wire.Publish(subject, n, first)


@cache
def _decoder() -> wire.Decoder:
    """Made when first needed: a command line that only asks never does."""
    return wire.Decoder(wire.FROM_CLIENT)


def checked(command: wire.Command, what: str) -> None:
    """`LocalProtocolError` for a field that the broker would end the connection for."""
    try:
        _decoder().decode(wire.encode(command))
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"{what}: {error}") from None


@lru_cache(maxsize=1024)
def check_subject(subject: str) -> None:
    """`LocalProtocolError` unless it names exactly one subject."""
    if not subjects.is_subject(subject):
        raise LocalProtocolError(f"not a subject: {subject!r}")


class Outgoing(Struct):
    """One message for the transport."""

    head: bytes
    body: bytes | None = None
    id: int | None = None
    transient: bool = False  # belongs to one connection and ends with it
    n: int = 1  # commands: ids from `id` on, bodies in an array
    kind: Kind | None = None

    @property
    def size(self) -> int:
        return len(self.head) + len(self.body or b"")

    @property
    def ids(self) -> range:
        """Of its commands that have one."""
        return range(0) if self.id is None else range(self.id, self.id + self.n)

    def apart(self) -> list[Outgoing]:
        """Its commands one by one."""
        if self.n == 1 or self.id is None or self.kind is None:
            return [self]
        make, *fields = self.kind
        return [
            Outgoing(wire.encode(make(ref, 1, *fields)), body, ref, self.transient)
            for ref, body in enumerate(wire.split(self.body or b"", self.n), self.id)
        ]


class SendQueue:
    """A client's commands that have not left.

    What is published for one subject leaves as one batch, and so do plain requests, replies and stores
    whose ids follow each other; the first two only if the broker takes them (`batches`).
    """

    def __init__(self) -> None:
        self.max_payload = DEFAULT_PAYLOAD  # bytes a body may have
        self.batches = False
        # The open batch, its subject unless it has a kind, and the room left in it. `Bus.publish` adds to it.
        self.batch: list[bytes] = []
        self.subject: str | None = None
        self.room = BATCH_ROOM
        self._queue: deque[Outgoing] = deque()
        self._kind: Kind | None = None
        self._next = -1  # the id that goes on with the batch
        self._transient = False
        self._buffered = 0
        self._commands = 0  # in the queue; each of a batch counts

    def __iter__(self) -> Iterator[Outgoing]:
        return iter(self._queue)

    @property
    def full(self) -> bool:
        return self._buffered >= MAX_BUFFERED

    @property
    def empty(self) -> bool:
        return not (self._queue or self.batch)

    @property
    def plenty(self) -> bool:
        """Whether as much has come together as a batch of requests may hold."""
        return self._commands >= BATCH_ASKED

    @property
    def next(self) -> Outgoing | None:
        if not self._queue:
            self._close_batch()
        return self._queue[0] if self._queue else None

    def pop(self) -> tuple[Outgoing, int]:
        """Take the next, which has left; it and its size."""
        outgoing = self._queue.popleft()
        size = outgoing.size
        self._buffered -= size
        self._commands -= outgoing.n
        return outgoing, size

    def bundle(self) -> tuple[int, bytes, bytes | None]:
        """How many of the next fit into one message, and that message's head and body."""
        parts: list[bytes | None] = []
        for outgoing in itertools.islice(self._queue, wire.MAX_BUNDLE):
            if outgoing.size > wire.BUNDLED:
                break
            parts += (outgoing.head, outgoing.body)
        if len(parts) <= 2:
            return 1, self._queue[0].head, self._queue[0].body
        return len(parts) // 2, *wire.pack_bundle(wire.Bundle, parts)

    def __len__(self) -> int:
        return len(self._queue)

    def push(
        self,
        command: wire.Command,
        body: bytes | None = None,
        ref: int | None = None,
        *,
        transient: bool = False,
    ) -> None:
        """Queue a command behind all that was said before."""
        self.put(Outgoing(wire.encode(command), body, ref, transient))

    def put(self, outgoing: Outgoing) -> None:
        """As `push`, what has been encoded."""
        if self.batch:
            self._close_batch()
        self._append(outgoing)

    def publish(self, subject: str, body: bytes) -> bool:
        """Queue one message; True when enough has come together that it should leave now.

        Nothing waits for a batch to fill.
        """
        cost = len(body) + BODY_COST
        full = cost > self.room
        if full or subject != self.subject:
            self._close_batch()
            self.check_size("publish", subject, body)
            self.subject = subject
        self.batch.append(body)
        self.room -= cost
        return full or self.room < 0 or len(self._queue) >= MAX_WAITING

    def add(self, ref: int, body: bytes, kind: Kind, *, transient: bool = False) -> None:
        """Queue a command with the id `ref`, in one with those just before it if they are alike.

        Who adds has checked the size of the body.
        """
        cost = len(body) + BODY_COST
        if ref != self._next or kind != self._kind or cost > self.room:
            self._close_batch()
            self._kind, self._transient = kind, transient
        self.batch.append(body)
        self.room -= cost
        self._next = ref + 1
        if len(self.batch) == BATCH_ASKED or not (self.batches or kind[0] is plain_store):
            self._close_batch()

    def keep(self, wanted: Callable[[Outgoing], bool], before: list[Outgoing]) -> None:
        """Take all apart, drop what is not wanted any more and put `before` first."""
        self._close_batch()
        single = itertools.chain.from_iterable(outgoing.apart() for outgoing in self._queue)
        self._queue = deque([*before, *filter(wanted, single)])
        self._buffered = sum(outgoing.size for outgoing in self._queue)
        self._commands = len(self._queue)

    def check_size(self, verb: str, subject: str, body: bytes) -> None:
        """`LocalProtocolError` for a body that cannot be sent."""
        check_bytes(verb, subject, body)
        if len(body) > self.max_payload:
            raise LocalProtocolError(
                f"{verb} {subject}: a body of {len(body)} bytes is over the broker's limit"
                f" of {self.max_payload}"
            )

    def _close_batch(self) -> None:
        batch = self.batch
        if not batch:
            return
        n = len(batch)
        body = batch[0] if n == 1 else wire.join(batch)
        if self._kind is None:
            assert self.subject is not None  # noqa: S101 - a batch has the one or the other
            outgoing = Outgoing(wire.encode(wire.Publish(self.subject, n)), body)
        else:
            make, *fields = self._kind
            first = self._next - n
            head = wire.encode(make(first, n, *fields))
            outgoing = Outgoing(head, body, first, self._transient, n, self._kind)
        self._append(outgoing)
        self.batch = []
        self.subject = self._kind = None
        self.room = BATCH_ROOM
        self._next = -1

    def _append(self, outgoing: Outgoing) -> None:
        self._queue.append(outgoing)
        self._buffered += outgoing.size
        self._commands += outgoing.n


def check_bytes(verb: str, subject: str, body: object) -> None:
    """`LocalProtocolError` for a body that is not bytes: the transport would trip over it later."""
    if not isinstance(body, bytes):
        raise LocalProtocolError(f"{verb} {subject}: a body is bytes, not {type(body).__name__}")


def milliseconds(seconds: float) -> int:
    """As the wire has them, brought into their range."""
    return min(max(0, int(seconds * 1000)), wire.MAX_DEADLINE)
