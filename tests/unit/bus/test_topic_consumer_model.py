"""The core of a consumer against a model that is too simple to be wrong: what comes, and how often."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bus.signals import ConsumerConfig
from bus.topics.consumer import Consumer
from bus.topics.work import ConsumerState, Fetched, Record, StoredConsumer

WAIT, LIMIT, WINDOW = 10.0, 3, 5


class ConsumerAgainstModel(RuleBasedStateMachine):
    """Messages are stored, pulled, settled, dropped; the broker restarts with or without the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.config = ConsumerConfig(
            "t", "c", ack_wait=WAIT, max_deliver=LIMIT, max_inflight=WINDOW
        )
        self.consumer = Consumer(StoredConsumer(1, self.config, ConsumerState(0)), self.now)
        self.last = 0
        self.gone: set[int] = set()  # what retention dropped
        # The model: of each sequence that was ever delivered and is not settled, how often, and when it may
        # come again (None: it will not, it is a dead letter).
        self.reached = 0
        self.open: dict[int, tuple[int, float | None]] = {}
        self.settled: set[int] = set()

    @rule(count=st.integers(1, 4))
    def store(self, count: int) -> None:
        self.last += count

    @rule(n=st.integers(1, 6))
    def pull(self, n: int) -> None:
        self.consumer.wake(self.now)
        ready = sorted(
            seq for seq, (_, due) in self.open.items() if due is not None and due <= self.now
        )
        expected = [seq for seq in ready if self.open[seq][0] < LIMIT][:n]
        again, fresh = self.consumer.wanted(n)
        assert list(again) == expected
        alive = [seq for seq in again if seq not in self.gone]
        lost = [seq for seq in again if seq in self.gone]
        room = WINDOW - len(self.open)
        new = [s for s in range(self.reached + 1, self.last + 1) if s not in self.gone]
        new = new[: max(0, min(fresh, n - len(again)))]
        assert fresh == max(0, min(n - len(again), room))
        cursor = new[-1] if new and len(new) == fresh else self.last if fresh else self.reached
        fetched = Fetched([rec(s) for s in alive], again, [rec(s) for s in new], cursor)
        records = self.consumer.receive(fetched)
        assert [record.seq for record in records] == alive + new
        for record in records:
            assert record.seq not in self.settled
            count = self.open.get(record.seq, (0, None))[0] + 1
            assert self.consumer.deliver(record.seq, self.now) == count
            self.open[record.seq] = count, self.now + WAIT
        self.consumer.skip(cursor)
        self.reached = max(self.reached, cursor)
        for seq in lost:
            del self.open[seq]
            self.settled.add(seq)

    @rule(
        data=st.data(), act=st.sampled_from(["ack", "nak", "wip", "term"]), delay=st.integers(0, 15)
    )
    def settle(self, data: st.DataObject, act: str, delay: int) -> None:
        seq = data.draw(st.integers(1, self.last + 1))
        self.expire()
        self.consumer.settle(seq, act, delay, self.now)
        if seq not in self.open:
            return
        count, due = self.open[seq]
        if due is None:
            return
        under_way = due > self.now
        if act == "ack":
            self.done(seq)
        elif act == "term":
            self.open[seq] = count, None
        elif not under_way:
            return
        elif act == "wip":
            self.open[seq] = count, self.now + WAIT
        else:
            self.open[seq] = count, None if count >= LIMIT else self.now + delay

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.expire()

    def expire(self) -> None:
        self.consumer.wake(self.now)
        for seq, (count, due) in list(self.open.items()):
            if due is not None and due <= self.now and count >= LIMIT:
                self.open[seq] = count, None

    @rule(count=st.integers(1, 3))
    def retention_drops_the_oldest(self, count: int) -> None:
        kept = [seq for seq in range(1, self.last + 1) if seq not in self.gone]
        self.gone |= set(kept[:count])

    @precondition(lambda self: self.consumer.doomed)
    @rule()
    def bury(self) -> None:
        for seq in self.consumer.doomed:
            self.consumer.bury(seq)
            self.done(seq)

    @rule()
    def restart(self) -> None:
        self.expire()
        stored = StoredConsumer(1, self.config, self.consumer.state)
        self.consumer = Consumer(stored, self.now)
        self.open = {
            seq: (count, None if due is None else self.now + WAIT)
            for seq, (count, due) in self.open.items()
        }

    def done(self, seq: int) -> None:
        del self.open[seq]
        self.settled.add(seq)

    @invariant()
    def both_agree(self) -> None:
        self.expire()
        assert self.consumer.cursor == self.reached
        dead = {seq for seq, (_, due) in self.open.items() if due is None}
        assert set(self.consumer.doomed) == dead
        stored = self.consumer.state
        assert set(stored.unsettled) == set(self.open)
        assert self.consumer.floor == min(self.open, default=self.reached + 1) - 1
        assert len(self.open) <= WINDOW
        due = [at for _, at in self.open.values() if at is not None and at > self.now]
        if due:  # it asks to be woken in time
            assert self.consumer.next_due is not None
            assert self.consumer.next_due <= min(due)


def rec(seq: int) -> Record:
    return Record(seq, 0, "app.x", "k", b"%d" % seq)


TestConsumerAgainstModel = ConsumerAgainstModel.TestCase
TestConsumerAgainstModel.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
