"""What a client of a durable topic was told, held against what the broker has and gives later."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class History:
    """Of one topic and one consumer. Bodies are numbers, in the order in which they were published."""

    sent: list[bytes] = field(default_factory=list)
    ids: set[bytes] = field(default_factory=set)  # of `sent`, what has a message id
    stored: dict[bytes, int] = field(default_factory=dict)  # answered OK with this sequence
    acked: set[int] = field(default_factory=set)  # answered OK
    asked: set[int] = field(default_factory=set)  # acked, and nothing was heard
    delivered: Counter[int] = field(default_factory=Counter)
    highest: int = 0  # of what was delivered

    def publish(self, *, identified: bool) -> bytes:
        body = b"%d" % (len(self.sent) + 1)
        self.sent.append(body)
        if identified:
            self.ids.add(body)
        return body

    @property
    def unheard(self) -> list[bytes]:
        """What may be published again, because it has an id."""
        return [body for body in self.sent if body in self.ids and body not in self.stored]

    def ok(self, body: bytes, seq: int) -> None:
        assert self.stored.setdefault(body, seq) == seq, (body, seq)

    def got(self, records: list[tuple[int, bytes]]) -> None:
        """Check what was delivered to the consumer."""
        for seq, body in records:
            assert seq not in self.acked, f"{seq} was acked, and came again"
            assert self.stored.get(body, seq) == seq, (body, seq)
            if not self.delivered[seq]:
                assert seq > self.highest, f"{seq} came for the first time after {self.highest}"
                self.highest = seq
            self.delivered[seq] += 1

    def check(self, records: list[tuple[int, bytes]]) -> None:
        """Check all that the topic holds."""
        assert [seq for seq, _ in records] == list(range(1, len(records) + 1))
        held = {body: seq for seq, body in records}
        assert len(held) == len(records), "a message is there twice"
        for body, seq in self.stored.items():
            assert held.get(body) == seq, f"{body!r} was answered OK with {seq}: {held.get(body)}"
        assert held.keys() <= set(self.sent)
        # What was sent again came late; all the rest lies in the order in which it was sent.
        plain = [int(body) for _, body in records if body not in self.ids]
        assert plain == sorted(plain), plain

    def complete(self, records: list[tuple[int, bytes]]) -> None:
        """Check that whatever nobody acked has been delivered."""
        for seq, _ in records:
            assert seq in self.acked | self.asked or self.delivered[seq], f"{seq} never came"
