"""Durable topics as a participant uses them: store, read, and pull and settle as a consumer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from bus import wire
from bus.calls import Calls
from bus.errors import LocalProtocolError, NoTopic
from bus.sending import milliseconds

PATIENCE = 5.0  # seconds for the broker's answer, beside what it was asked to wait


class Stored(msgspec.Struct, frozen=True):
    """A message is safe on the broker's disk; `duplicate`: it was before, under this sequence."""

    seq: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One message of a topic."""

    seq: int
    subject: str
    sender: str  # the proved key, Z85
    time: float  # when it was stored, Unix seconds
    body: bytes

    @classmethod
    def of(cls, record: wire.Record, body: bytes) -> Record:
        return cls(record.seq, record.s, record.sender, record.t / 1000, body)


@dataclass(frozen=True, slots=True)
class Pulled(Record):
    """A record that a consumer has to settle, or it comes again after the consumer's `ack_wait`.

    The methods return when the broker has it on disk, and raise as
    `Bus.settle` does.
    """

    topic: str
    consumer: str
    deliveries: int  # how often it was delivered to this consumer, this time included
    _settle: Callable[[Sequence[Pulled], str, float], Awaitable[None]] = field(
        repr=False, compare=False
    )

    async def ack(self) -> None:
        """Done: it does not come again."""
        await self._settle([self], "ack", 0.0)

    async def nak(self, delay: float = 0.0) -> None:
        """Not done: it may come again after `delay` seconds."""
        await self._settle([self], "nak", delay)

    async def wip(self) -> None:
        """Work in progress: the time until it comes again starts anew."""
        await self._settle([self], "wip", 0.0)

    async def term(self) -> None:
        """Not to be delivered any more: it goes where dead letters go."""
        await self._settle([self], "term", 0.0)


class Page(msgspec.Struct, frozen=True):
    """Some records of a topic; `next` is the sequence after them, `left` how many are there from it on."""

    records: list[Record]
    next: int
    left: int


class DurableTopics:
    """The part of `Bus` that is about durable topics.

    Errors of all: `NoTopic`, `NotAuthorised`, `DeadlineExceeded`, and `Unreachable` when the connection
    was lost and nobody knows.
    """

    _calls: Calls

    async def store(
        self, subject: str, body: bytes = b"", *, message_id: str = "", timeout: float = PATIENCE
    ) -> Stored:
        """Publish and return when it is safe on the broker's disk.

        With a `message_id` (up to 64 characters) it is sent again after a reconnect, until the time is
        up, and stored once. `NoTopic` when no durable topic takes the subject in, `StoreFull`.
        """
        calls = self._calls
        await calls.room()
        ref = calls.session.durable.store(subject, body, message_id, timeout, calls.now)
        ok = (await calls.result(ref, timeout)).ok
        if ok is None or ok.seq is None:
            problem = f"no durable topic takes in {subject}: it was published, and not stored"
            raise NoTopic(problem)
        return Stored(ok.seq, ok.dup)

    async def pull(
        self, topic: str, consumer: str, *, n: int = 1, wait: float = 0.0
    ) -> list[Pulled]:
        """Take up to `n` records (at most 256) for a consumer, waiting up to `wait` seconds for the first.

        Each has to be settled, or it comes again. Empty when there is nothing.
        """
        calls = self._calls
        command = wire.Pull(0, topic, consumer, n, milliseconds(wait))
        ref = calls.session.durable.pull(command, wait + PATIENCE, calls.now)
        settled = await calls.result(ref, wait + PATIENCE)
        return [
            Pulled(
                record.seq, record.s, record.sender, record.t / 1000, body,
                topic, consumer, record.dlv, self.settle,
            )
            for record, body in settled.records
        ]  # fmt: skip

    async def settle(self, pulled: Sequence[Pulled], act: str = "ack", delay: float = 0.0) -> None:
        """Say what became of records of one consumer: `act` is ack, nak, wip or term.

        Returns when the broker has it on disk. To settle what was settled before changes nothing.
        """
        if not pulled:
            return
        calls, first = self._calls, pulled[0]
        if any((p.topic, p.consumer) != (first.topic, first.consumer) for p in pulled):
            raise LocalProtocolError("settle: the records are of more than one consumer")
        seqs = [p.seq for p in pulled]
        command = wire.Settle(first.topic, first.consumer, seqs, act, milliseconds(delay))
        ref = calls.session.durable.settle(command, PATIENCE, calls.now)
        await calls.result(ref, PATIENCE)

    async def read(
        self,
        topic: str,
        *,
        seq: int | None = None,
        time: float | None = None,
        last: int | None = None,
        n: int = 1,
        wait: float = 0.0,
    ) -> Page:
        """Up to `n` records (at most 256) from a sequence, a time (Unix seconds) or the `last` so many on.

        Without a place: from the first. Waits up to `wait` seconds for the first record.
        """
        calls = self._calls
        when = None if time is None else max(0, int(time * 1000))
        command = wire.Read(0, topic, seq, when, last, n, milliseconds(wait))
        ref = calls.session.durable.read(command, wait + PATIENCE, calls.now)
        settled = await calls.result(ref, wait + PATIENCE)
        ok = settled.ok or wire.Ok(0)
        records = [Record.of(record, body) for record, body in settled.records]
        return Page(records, ok.seq or 0, ok.left or 0)
