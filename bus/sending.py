"""What a client has for the broker: commands in their order, what is published as batches. Pure."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from bus import wire
from bus.errors import LocalProtocolError, RemoteProtocolError

BATCH_MESSAGES = 256
BATCH_BYTES = 32 << 10
MAX_BUFFERED = 8 << 20  # bytes that wait for the transport before publishers have to
DEFAULT_PAYLOAD = 1 << 20  # bytes; until WELCOME tells the broker's own limit


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


@dataclass(slots=True)
class Outgoing:
    """One message for the transport."""

    head: bytes
    body: bytes | None = None
    id: int | None = None
    transient: bool = False  # belongs to one connection and ends with it


class SendQueue:
    """A client's commands that have not left. What is published for one subject leaves as one batch."""

    def __init__(self) -> None:
        self.max_payload = DEFAULT_PAYLOAD  # bytes a body may have
        self._queue: deque[Outgoing] = deque()
        self._batch: list[bytes] = []
        self._batch_subject = ""
        self._batch_bytes = 0
        self._buffered = 0

    def __iter__(self) -> Iterator[Outgoing]:
        return iter(self._queue)

    @property
    def full(self) -> bool:
        return self._buffered >= MAX_BUFFERED

    @property
    def empty(self) -> bool:
        return not (self._queue or self._batch)

    @property
    def next(self) -> Outgoing | None:
        if not self._queue:
            self._close_batch()
        return self._queue[0] if self._queue else None

    def pop(self) -> tuple[Outgoing, int]:
        """Take the next, which has left; it and its size."""
        outgoing = self._queue.popleft()
        size = _size(outgoing)
        self._buffered -= size
        return outgoing, size

    def bundle(self) -> tuple[int, bytes, bytes | None]:
        """How many of the next fit into one message, and that message's head and body."""
        parts: list[bytes | None] = []
        for outgoing in itertools.islice(self._queue, wire.MAX_BUNDLE):
            if _size(outgoing) > wire.BUNDLED:
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
        """Queue a command behind all that was published before."""
        outgoing = Outgoing(wire.encode(command), body, ref, transient)
        if self._batch:
            self._close_batch()
        self._queue.append(outgoing)
        self._buffered += _size(outgoing)

    def publish(self, subject: str, body: bytes) -> bool:
        """Queue one message; True when it completed a batch, which should leave now.

        Nothing waits for a batch to fill. The hot path of the bus: no call but `append` and `len`.
        """
        if subject != self._batch_subject or len(body) > BATCH_BYTES:
            self._close_batch()
            self.check_size("publish", subject, body)
        self._batch_subject = subject
        self._batch.append(body)
        self._batch_bytes += len(body)
        if len(self._batch) < BATCH_MESSAGES and self._batch_bytes < BATCH_BYTES:
            return False
        self._close_batch()
        return True

    def keep(self, wanted: Callable[[Outgoing], bool], before: list[Outgoing]) -> None:
        """Drop what is not wanted any more and put `before` first."""
        self._queue = deque([*before, *filter(wanted, self._queue)])
        self._buffered = sum(map(_size, self._queue))

    def check_size(self, verb: str, subject: str, body: bytes) -> None:
        """`LocalProtocolError` for a body that cannot be sent."""
        check_bytes(verb, subject, body)
        if len(body) > self.max_payload:
            raise LocalProtocolError(
                f"{verb} {subject}: a body of {len(body)} bytes is over the broker's limit"
                f" of {self.max_payload}"
            )

    def _close_batch(self) -> None:
        batch = self._batch
        if not batch:
            return
        n = len(batch)
        head = wire.encode(wire.Publish(self._batch_subject, n))
        outgoing = Outgoing(head, batch[0] if n == 1 else wire.join(batch))
        self._queue.append(outgoing)
        self._buffered += _size(outgoing)
        self._batch = []
        self._batch_bytes = 0


def check_bytes(verb: str, subject: str, body: object) -> None:
    """`LocalProtocolError` for a body that is not bytes: the transport would trip over it later."""
    if not isinstance(body, bytes):
        raise LocalProtocolError(f"{verb} {subject}: a body is bytes, not {type(body).__name__}")


def milliseconds(seconds: float) -> int:
    """As the wire has them, brought into their range."""
    return min(max(0, int(seconds * 1000)), wire.MAX_DEADLINE)


def _size(outgoing: Outgoing) -> int:
    return len(outgoing.head) + len(outgoing.body or b"")
