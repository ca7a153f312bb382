"""What the store counts of one topic."""

from __future__ import annotations

from dataclasses import dataclass

from bus.signals import TopicConfig


@dataclass(slots=True)
class Extent:
    """One topic as it will be when the transaction is through."""

    number: int
    config: TopicConfig
    first: int = 1
    last: int = 0
    messages: int = 0
    bytes: int = 0
    t: int = 0  # of the last record, Unix milliseconds; never goes back

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        return self.first, self.last, self.messages, self.bytes, self.t
