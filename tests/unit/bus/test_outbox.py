"""The bounded queue: what gives way, and that the counts are exact."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bus import wire
from bus.routing.outbox import (
    DISCONNECT,
    DROP_NEW,
    DROP_OLD,
    MAX_CREDIT,
    Budget,
    CreditedOutbox,
    Drops,
    Outbox,
    Outgoing,
)

decode = wire.Decoder(wire.FROM_BROKER).decode
MESSAGES, BYTES = 40, 4000


def delivery(drops: Drops, number: int = 0, count: int = 1, size: int = 10) -> Outgoing:
    return Outgoing(b"%d" % number, bytes(size), drops, count)


def answer() -> Outgoing:
    return Outgoing(b"answer", b"")


def drain(box: Outbox) -> list[Outgoing]:
    """Take all that may leave."""
    left = []
    while box.next is not None:
        left.append(box.pop())
    return left


def heads(box: Outbox) -> list[bytes]:
    return [out.head for out in drain(box)]


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
    assert gap_of(gap) == wire.Gap(7, 3, 3)
    assert after.head == b"9"


def test_drop_old_makes_half_the_room_and_tells_first() -> None:
    box, drops = Outbox(10, 10_000), Drops(7, DROP_OLD)
    for number in range(11):
        assert box.push(delivery(drops, number))
    gap, *rest = drain(box)
    assert gap_of(gap) == wire.Gap(7, 5, 1)
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


def test_losses_are_counted_and_told_to_who_wants_to_hear() -> None:
    box, drops = Outbox(4, 1000), Drops(7, DROP_OLD)
    heard: list[int] = []
    box.on_loss = heard.append
    for number in range(9):
        box.push(delivery(drops, number))
    assert sum(heard) == box.lost == 9 - len([h for h in heads(box) if h.isdigit()])


def test_without_credit_a_delivery_waits_and_everything_else_passes() -> None:
    box, drops = CreditedOutbox(wire.Grant(1, 1000), 10, 1000), Drops(7, DROP_NEW)
    for number in range(3):
        box.push(delivery(drops, number))
    box.push(answer())
    assert heads(box) == [b"0", b"answer"]
    assert len(box) == 2
    box.push(answer())
    assert heads(box) == [b"answer"]


def test_a_grant_lets_as_many_go_in_order_and_the_rest_wait_on() -> None:
    box, drops = CreditedOutbox(wire.Grant(0, 0), 10, 1000), Drops(7, DROP_NEW)
    for number in range(4):
        box.push(delivery(drops, number))
    assert drain(box) == []
    box.grant(2, 1000)
    assert heads(box) == [b"0", b"1"]
    box.push(delivery(drops, 4))
    box.grant(2**40, 0)
    assert heads(box) == [b"2", b"3", b"4"]


def test_with_credit_left_the_order_is_that_of_arrival() -> None:
    box, drops = CreditedOutbox(wire.Grant(9, 1000), 10, 1000), Drops(7, DROP_NEW)
    box.push(delivery(drops, 0))
    box.push(answer())
    box.push(delivery(drops, 1))
    assert heads(box) == [b"0", b"answer", b"1"]


def test_bytes_may_be_overdrawn_by_one_delivery_that_is_larger_than_all_credit() -> None:
    box, drops = CreditedOutbox(wire.Grant(10, 1), 10, 10_000), Drops(7, DROP_NEW)
    box.push(delivery(drops, 0, size=500))
    box.push(delivery(drops, 1, size=500))
    assert heads(box) == [b"0"]
    box.grant(0, 499)
    assert heads(box) == []
    box.grant(0, 1)
    assert heads(box) == [b"1"]


def test_messages_of_a_batch_are_credited_each() -> None:
    box, drops = CreditedOutbox(wire.Grant(2, 1000), 100, 1000), Drops(7, DROP_NEW)
    box.push(delivery(drops, 0, count=5))
    box.push(delivery(drops, 1))
    assert heads(box) == [b"0"]
    box.grant(3, 0)
    assert heads(box) == []
    box.grant(1, 0)
    assert heads(box) == [b"1"]


def test_no_sum_of_grants_overflows() -> None:
    box, drops = CreditedOutbox(wire.Grant(0, 2**63 - 1), 10, 1000), Drops(7, DROP_NEW)
    for _ in range(3):
        box.grant(MAX_CREDIT - 1, 2**63 - 1)
    assert (box._m, box._b) == (MAX_CREDIT, MAX_CREDIT)
    box.push(delivery(drops))
    assert heads(box) == [b"0"]


def test_what_waits_for_credit_gives_way_by_its_policy() -> None:
    box, drops = CreditedOutbox(wire.Grant(0, 0), 4, 1000), Drops(7, DROP_OLD)
    for number in range(4):
        box.push(delivery(drops, number))
    assert drain(box) == []
    box.push(delivery(drops, 4))
    box.grant(9, 1000)
    gap, *rest = drain(box)
    assert gap_of(gap) == wire.Gap(7, 2, 1)
    assert [out.head for out in rest] == [b"2", b"3", b"4"]


def test_a_gap_keeps_its_place_among_what_waits_for_credit() -> None:
    box, drops = CreditedOutbox(wire.Grant(0, 0), 3, 1000), Drops(7, DROP_NEW)
    for number in range(4):
        box.push(delivery(drops, number))
    assert drain(box) == []
    box.grant(1, 1000)
    assert heads(box) == [b"0"]
    box.push(delivery(drops, 4))
    assert drain(box) == []
    box.grant(9, 1000)
    assert [o.head if o.drops else gap_of(o) for o in drain(box)] == [
        b"1", b"2", wire.Gap(7, 1, 4), b"4",
    ]  # fmt: skip


def test_clearing_frees_what_waits_for_credit_as_well() -> None:
    budget = Budget(1000)
    box, drops = CreditedOutbox(wire.Grant(0, 0), 3, 1000, budget), Drops(7, DROP_NEW)
    box.push(delivery(drops))
    assert drain(box) == []
    box.clear()
    assert (budget.used, box.bytes, box.messages, len(box)) == (0, 0, 0, 0)


@pytest.mark.parametrize("policy", [DROP_OLD, DROP_NEW])
def test_deliveries_that_fill_the_queue_leave_room_for_answers(policy: str) -> None:
    box, drops = CreditedOutbox(wire.Grant(0, 0), 8, 1000), Drops(7, policy)
    for number in range(20):
        assert box.push(delivery(drops, number))
    while box.messages < 8:
        assert box.push(delivery(drops, 0))
    assert [box.push(answer()) for _ in range(3)] == [True, True, False]
    assert [head for head in heads(box) if head == b"answer"] == [b"answer", b"answer"]


class OutboxAgainstAccount(RuleBasedStateMachine):
    """Of each subscription the deliveries and the GAPs together tell all that came, in order.

    Every GAP begins where the last delivery ended. A reader with credit gets as much as it granted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.box = self.make()
        self.drops = {sid: Drops(sid, p) for sid, p in enumerate([DROP_OLD, DROP_NEW, DROP_OLD])}
        self.pushed = dict.fromkeys(self.drops, 0)
        self.seen = dict.fromkeys(self.drops, 0)  # delivered or told to be lost
        self.answers = self.answered = self.number = 0
        self.last = dict.fromkeys(self.drops, -1)
        self.ended = False
        self.m, self.b = 2**50, 2**50

    def make(self) -> Outbox:
        return Outbox(MESSAGES, BYTES)

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
        for _ in range(many):
            if self.box.next is None:
                break
            out = self.box.next
            assert self.box.pop() is out
            if out.drops is not None:
                assert self.m > 0, "without credit"
                assert self.b > 0, "without credit"
                self.m -= out.count
                self.b -= len(out.body or b"")
            self.take(out)

    def take(self, out: Outgoing) -> None:
        if out.drops is not None:
            assert int(out.head) > self.last[out.drops.sid], "out of order"
            self.last[out.drops.sid] = int(out.head)
            self.seen[out.drops.sid] += out.count
        elif out.head == b"answer":
            self.answered += 1
        else:
            gap = gap_of(out)
            assert gap.first == self.seen[gap.sid] + 1
            self.seen[gap.sid] += gap.lost

    def waiting(self) -> list[Outgoing]:
        return list(self.box._queue)

    @invariant()
    def nothing_is_lost_silently(self) -> None:
        queued = dict.fromkeys(self.drops, 0)
        answers = 0
        for out in self.waiting():
            if out.drops is not None:
                queued[out.drops.sid] += out.count
            elif out.head == b"answer":
                answers += 1
            else:
                gap = gap_of(out)
                queued[gap.sid] += gap.lost
        assert answers + self.answered == self.answers
        for sid, drops in self.drops.items():
            assert self.seen[sid] + queued[sid] + drops.lost == self.pushed[sid] == drops.count

    @invariant()
    def the_bounds_hold(self) -> None:
        # Answers may use a quarter more than deliveries, and a GAP that has to be told may come on top:
        # one for each subscription.
        assert self.box.messages <= MESSAGES + MESSAGES // 4 + len(self.drops)
        assert self.box.bytes <= BYTES + BYTES // 4 + 40 * len(self.drops)
        assert self.box.messages == sum(out.count for out in self.waiting())
        assert self.box.bytes == sum(out.size for out in self.waiting())
        assert len(self.box) == len(self.waiting())


class CreditedOutboxAgainstAccount(OutboxAgainstAccount):
    box: CreditedOutbox

    def __init__(self) -> None:
        super().__init__()
        self.m, self.b = 5, 1000

    def make(self) -> Outbox:
        return CreditedOutbox(wire.Grant(5, 1000), MESSAGES, BYTES)

    def waiting(self) -> list[Outgoing]:
        return [*self.box._held, *self.box._queue]

    @rule(messages=st.integers(0, 20), size=st.integers(0, 2000))
    def grant(self, messages: int, size: int) -> None:
        self.box.grant(messages, size)
        self.m += messages
        self.b += size

    @invariant()
    def whoever_has_credit_is_not_kept_waiting(self) -> None:
        if self.m > 0 and self.b > 0 and len(self.box):
            assert self.box.next is not None


MANY = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestOutboxAgainstAccount = OutboxAgainstAccount.TestCase
TestOutboxAgainstAccount.settings = MANY
TestCreditedOutboxAgainstAccount = CreditedOutboxAgainstAccount.TestCase
TestCreditedOutboxAgainstAccount.settings = MANY


# Bundles.


def test_small_messages_leave_as_one() -> None:
    outbox = Outbox(100, 10_000)
    for n in range(3):
        outbox.push(Outgoing(b"head%d" % n, b"%d" % n if n else None))
    bundle = outbox.bundle()
    assert bundle.head == wire.encode(wire.BundleDelivery(3))
    assert wire.unpack_bundle(bundle.body or b"", 3) == [
        (b"head0", None),
        (b"head1", b"1"),
        (b"head2", b"2"),
    ]
    assert bundle.count == 3
    assert len(outbox) == outbox.messages == outbox.bytes == 0


def test_a_large_message_goes_by_itself_and_ends_a_bundle() -> None:
    outbox = Outbox(100, 10_000)
    small, large = Outgoing(b"s"), Outgoing(b"l", bytes(wire.BUNDLED))
    for outgoing in (small, large, small):
        outbox.push(outgoing)
    assert outbox.bundle() is small
    assert outbox.bundle() is large
    assert outbox.bundle() is small


def test_a_bundle_holds_no_more_than_its_limit() -> None:
    outbox = Outbox(1000, 100_000)
    for _ in range(wire.MAX_BUNDLE + 1):
        outbox.push(Outgoing(b"h", b"b"))
    assert outbox.bundle().count == wire.MAX_BUNDLE
    assert len(outbox) == 1
