"""The bounded queue: what gives way, and that the counts are exact."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bus import wire
from bus.routing.outbox import DISCONNECT, DROP_NEW, DROP_OLD, Drops, Outbox, Outgoing

decode = wire.Decoder(wire.FROM_BROKER).decode
MESSAGES, BYTES = 40, 4000


def delivery(drops: Drops, number: int = 0, count: int = 1, size: int = 10) -> Outgoing:
    return Outgoing(b"%d" % number, bytes(size), drops, count)


def answer() -> Outgoing:
    return Outgoing(b"answer", b"")


def drain(box: Outbox) -> list[Outgoing]:
    return [box.pop() for _ in range(len(box))]


def gap_of(outgoing: Outgoing) -> wire.Gap:
    gap = decode(outgoing.head)
    assert isinstance(gap, wire.Gap)
    return gap


def test_what_fits_leaves_in_order() -> None:
    box, drops = Outbox(10, 1000), Drops(1, DROP_OLD)
    sent = [delivery(drops, n) for n in range(10)]
    assert all(box.push(out) for out in sent)
    assert drain(box) == sent


def test_drop_new_refuses_the_newcomer_and_tells_before_the_next() -> None:
    box, drops = Outbox(2, 1000), Drops(7, DROP_NEW)
    for number in range(5):
        assert box.push(delivery(drops, number))
    assert [out.head for out in drain(box)] == [b"0", b"1"]
    assert box.push(delivery(drops, 9))
    gap, after = drain(box)
    assert gap_of(gap) == wire.Gap(7, 3)
    assert after.head == b"9"


def test_drop_old_makes_half_the_room_and_tells_first() -> None:
    box, drops = Outbox(10, 10_000), Drops(7, DROP_OLD)
    for number in range(11):
        assert box.push(delivery(drops, number))
    gap, *rest = drain(box)
    assert gap_of(gap) == wire.Gap(7, 5)
    assert [out.head for out in rest] == [b"5", b"6", b"7", b"8", b"9", b"10"]


def test_disconnect_ends_the_session_instead_of_losing() -> None:
    box, drops = Outbox(1, 1000), Drops(7, DISCONNECT)
    assert box.push(delivery(drops))
    assert not box.push(delivery(drops))


def test_an_answer_that_does_not_fit_ends_the_session() -> None:
    box, drops = Outbox(2, 1000), Drops(7, DROP_NEW)
    assert box.push(delivery(drops))
    assert box.push(answer())
    assert not box.push(answer())


def test_an_answer_is_never_dropped_for_a_delivery() -> None:
    box, drops = Outbox(2, 1000), Drops(7, DROP_OLD)
    assert box.push(answer())
    assert box.push(answer())
    assert not box.push(delivery(drops))
    assert [out.head for out in drain(box)] == [b"answer", b"answer"]


def test_a_batch_counts_as_its_messages() -> None:
    box, drops = Outbox(100, 10_000), Drops(7, DROP_NEW)
    assert box.push(delivery(drops, count=100))
    assert box.push(delivery(drops, count=64))
    assert drops.lost == 64


def test_bytes_are_bounded_as_well() -> None:
    box, drops = Outbox(1000, 100), Drops(7, DROP_NEW)
    assert box.push(delivery(drops, size=90))
    assert box.push(delivery(drops, size=90))
    assert drops.lost == 1


def test_a_cleared_box_has_all_its_room_again() -> None:
    box, drops = Outbox(2, 1000), Drops(7, DISCONNECT)
    for _ in range(3):
        assert box.push(delivery(drops))
        assert box.push(delivery(drops))
        box.clear()


class OutboxAgainstAccount(RuleBasedStateMachine):
    """For each subscription: delivered + lost by GAP + lost and not yet told + queued = pushed."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Outbox(MESSAGES, BYTES)
        self.drops = {sid: Drops(sid, p) for sid, p in enumerate([DROP_OLD, DROP_NEW, DROP_OLD])}
        self.pushed = dict.fromkeys(self.drops, 0)
        self.delivered = dict.fromkeys(self.drops, 0)
        self.told = dict.fromkeys(self.drops, 0)
        self.answers = self.answered = self.number = 0
        self.last = dict.fromkeys(self.drops, -1)
        self.ended = False

    @precondition(lambda self: not self.ended)
    @rule(sid=st.integers(0, 2), count=st.integers(1, 12), size=st.integers(0, 600))
    def deliver(self, sid: int, count: int, size: int) -> None:
        self.number += 1
        if self.box.push(delivery(self.drops[sid], self.number, count, size)):
            self.pushed[sid] += count
        else:
            self.ended = True

    @precondition(lambda self: not self.ended)
    @rule()
    def reply(self) -> None:
        if self.box.push(answer()):
            self.answers += 1
        else:
            self.ended = True

    @rule(many=st.integers(1, 30))
    def read(self, many: int) -> None:
        for _ in range(min(many, len(self.box))):
            out = self.box.pop()
            if out.drops is not None:
                assert int(out.head) > self.last[out.drops.sid], "out of order"
                self.last[out.drops.sid] = int(out.head)
                self.delivered[out.drops.sid] += out.count
            elif out.head == b"answer":
                self.answered += 1
            else:
                gap = gap_of(out)
                self.told[gap.sid] += gap.lost

    @invariant()
    def nothing_is_lost_silently(self) -> None:
        queued = dict.fromkeys(self.drops, 0)
        answers = 0
        for out in self.box._queue:
            if out.drops is not None:
                queued[out.drops.sid] += out.count
            elif out.head == b"answer":
                answers += 1
            else:
                gap = gap_of(out)
                queued[gap.sid] += gap.lost
        assert answers + self.answered == self.answers
        for sid, drops in self.drops.items():
            seen = self.delivered[sid] + self.told[sid] + queued[sid] + drops.lost
            assert seen == self.pushed[sid]

    @invariant()
    def the_bounds_hold(self) -> None:
        # A GAP that has to be told may come on top: one for each subscription.
        assert self.box._messages <= MESSAGES + len(self.drops)
        assert self.box._bytes <= BYTES + 32 * len(self.drops)
        assert self.box._messages == sum(out.count for out in self.box._queue)
        assert self.box._bytes == sum(out.size for out in self.box._queue)


TestOutboxAgainstAccount = OutboxAgainstAccount.TestCase
TestOutboxAgainstAccount.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None
)
