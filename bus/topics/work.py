"""What the journal is asked to do and what it gives back: plain values, so that the core needs no thread.

The outcome of a work is the type that its docstring names, or a `RemoteProtocolError`: then nothing of it
was done. Times are Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bus.signals import ConsumerConfig, TopicConfig, TopicInfo


class Record(NamedTuple):
    """One stored message."""

    seq: int
    t: int
    subject: str
    sender: str
    body: bytes


# To be written. Outcomes are handed back when they are on the disk.


@dataclass(frozen=True, slots=True)
class Append:
    """Store bodies under the next sequences: `Appended`."""

    topic: str
    sender: str
    subject: str
    bodies: Sequence[bytes]
    t: int
    mid: str = ""


@dataclass(frozen=True, slots=True)
class Appended:
    seq: int  # of the last body
    dup: bool = False  # stored before, under `seq`


@dataclass(frozen=True, slots=True)
class SaveConsumer:
    """Remember how far a consumer is: None."""

    number: int
    state: ConsumerState


@dataclass(frozen=True, slots=True)
class PutTopic:
    """Make a topic or change one: `TopicInfo`."""

    config: TopicConfig


@dataclass(frozen=True, slots=True)
class RemoveTopic:
    """Forget a topic, its records and its consumers: None."""

    topic: str


@dataclass(frozen=True, slots=True)
class PutConsumer:
    """Make a consumer, or change one but for where it is: `StoredConsumer`."""

    config: ConsumerConfig


@dataclass(frozen=True, slots=True)
class RemoveConsumer:
    """Forget a consumer: None."""

    number: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Drop what is too old, a slice at a time: True when there is more."""

    t: int


# To be read. Only what is on the disk is seen.


@dataclass(frozen=True, slots=True)
class Fetch:
    """Records for a consumer: those of `again` and up to `n` after `after`: `Fetched`."""

    topic: str
    again: Sequence[int]
    after: int
    n: int
    filter: str
    max_bytes: int  # beyond the first record


@dataclass(frozen=True, slots=True)
class Fetched:
    again: Sequence[Record]
    asked: Sequence[int]  # of `again`, what was looked for: what is not found is gone
    fresh: Sequence[Record]
    cursor: int  # up to here there is nothing more that passes the filter


@dataclass(frozen=True, slots=True)
class ReadPage:
    """Records from a place on, which is one of `seq`, `time` and `last`: `Page`."""

    topic: str
    n: int
    max_bytes: int  # beyond the first record
    seq: int | None = None
    time: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    records: Sequence[Record]
    next: int  # the sequence after the last one, to go on from
    left: int  # records from there on


Work = (
    Append | SaveConsumer | PutTopic | RemoveTopic | PutConsumer | RemoveConsumer | Expire
    | Fetch | ReadPage
)  # fmt: skip
READS = (Fetch, ReadPage)


# What the store holds at the start.


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """All up to `cursor` is settled but what is `unsettled`: deliveries by sequence, -1: to be buried."""

    cursor: int
    unsettled: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredConsumer:
    number: int
    config: ConsumerConfig
    state: ConsumerState


@dataclass(frozen=True, slots=True)
class Contents:
    topics: Sequence[TopicInfo] = ()
    consumers: Sequence[StoredConsumer] = ()


Then = Callable[[Any, float], None]  # called with the outcome and the monotonic time


class Journal(Protocol):
    """Carries out works in their order; reads see what was written before them.

    What becomes of a topic is told through `changed` before the outcomes that it comes with.
    """

    changed: Callable[[TopicInfo, float], None]
    contents: Contents

    @property
    def busy(self) -> bool:
        """Whether works are under way."""
        ...

    def submit(self, work: Work, then: Then) -> bool:
        """Take a work in; False when too much is waiting, and then nothing will come of it."""
        ...
