"""Packets that wait: turns of flows, who goes first, what is dropped."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nodes.tunnel.queue import (
    ALL_BYTES,
    INTERVAL,
    LEAST_BYTES,
    MAX_BYTES,
    MAX_PACKETS,
    STALE,
    TARGET,
    FairQueue,
    Packet,
    limit,
)
from nodes.tunnel.vnet import Shape
from tests.support.ip_packets import tcp, v4

PLAIN = Shape(0, 0)


def packet(size: int, now: float = 0.0, *, ecn: bool = False) -> Packet:
    data = bytearray(v4("10.9.0.1", "10.9.0.2", 6, tcp(bytes(size - 40)), tos=1 if ecn else 0))
    return Packet(data, PLAIN, 4, now)


def numbered(number: int, size: int = 100, now: float = 0.0) -> Packet:
    made = packet(size, now)
    made.data[-4:] = number.to_bytes(4, "big")
    return made


def number(taken: Packet | None) -> int:
    assert taken is not None
    return int.from_bytes(taken.data[-4:], "big")


def test_an_empty_queue_has_nothing() -> None:
    queue = FairQueue()
    assert not queue
    assert queue.pop(0.0) is None


def test_packets_of_a_flow_stay_in_order() -> None:
    queue = FairQueue()
    for at in range(50):
        queue.push(b"a", numbered(at))
    assert [number(queue.pop(0.0)) for _ in range(50)] == list(range(50))
    assert not queue
    assert queue.bytes == 0


def test_a_flow_that_begins_goes_before_those_that_fill_the_lane() -> None:
    queue = FairQueue()
    for _ in range(10):
        queue.push(b"bulk", packet(60_000))
    queue.pop(0.0)
    queue.push(b"ping", numbered(7))
    assert queue.urgent
    assert number(queue.pop(0.0)) == 7


def test_flows_get_the_same_number_of_bytes_whatever_their_packets() -> None:
    queue = FairQueue()
    for _ in range(8):
        queue.push(b"large", packet(60_000))
    for _ in range(250):
        queue.push(b"small", packet(1000))
        queue.push(b"other", packet(1001))
    sent: Counter[int] = Counter()
    for _ in range(300):
        taken = queue.pop(0.0)
        assert taken is not None
        sent[len(taken.data)] += len(taken.data)
    assert abs(sent[60_000] - sent[1000]) <= 60_000 + 16_384
    assert abs(sent[1001] - sent[1000]) <= 16_384


def test_when_it_is_full_the_flow_that_has_most_loses_its_oldest() -> None:
    queue = FairQueue()
    queue.push(b"little", numbered(1))
    for at in range(40):
        queue.push(b"much", numbered(at, 60_000))
    assert queue.bytes <= MAX_BYTES
    assert queue.dropped["queue_full"] == 40 + 1 - queue.packets
    assert number(queue.pop(0.0)) == 1
    assert number(queue.pop(0.0)) == queue.dropped["queue_full"]


def test_a_flood_of_flows_is_bounded_too() -> None:
    queue = FairQueue()
    for at in range(3 * MAX_PACKETS):
        queue.push(at.to_bytes(4, "big"), numbered(at, 40))
    assert queue.packets == MAX_PACKETS
    assert len(queue._flows) <= 3 * MAX_PACKETS
    while queue.pop(0.0) is not None:
        pass
    assert not queue._flows
    assert queue.bytes == queue.packets == 0


def test_many_queues_share_what_a_few_would_have() -> None:
    assert limit(4) == MAX_BYTES
    assert limit(0) == MAX_BYTES
    assert limit(256) * 256 == ALL_BYTES
    assert limit(10_000) == LEAST_BYTES
    queue = FairQueue()
    queue.limit = limit(10_000)
    for _ in range(10):
        queue.push(b"much", packet(60_000))
    assert queue.bytes <= LEAST_BYTES


def slow(queue: FairQueue, seconds: float, *, ecn: bool = False) -> Counter[str]:
    """A flow that always has 20 packets waiting, of which one leaves each 5 ms."""
    outcome: Counter[str] = Counter()
    now = 0.0
    while now < seconds:
        while queue.packets < 20:
            queue.push(b"bulk", packet(1500, now, ecn=ecn))
        taken = queue.pop(now)
        assert taken is not None
        outcome["marked" if taken.data[1] & 3 == 3 else "sent"] += 1
        now += TARGET
    return outcome


def test_a_flow_whose_packets_wait_for_long_loses_some_ever_more_often() -> None:
    queue = FairQueue()
    slow(queue, INTERVAL)
    assert not queue.dropped
    slow(queue, 1.0)
    few = queue.dropped["congestion"]
    assert few > 2
    slow(queue, 1.0)
    assert queue.dropped["congestion"] > 2 * few


def test_a_flow_that_knows_ecn_is_told_and_loses_nothing() -> None:
    queue = FairQueue()
    outcome = slow(queue, 1.0, ecn=True)
    assert outcome["marked"] == queue.marked > 2
    assert not queue.dropped


def test_who_waits_only_now_and_then_loses_nothing() -> None:
    queue = FairQueue()
    now = 0.0
    for _ in range(100):
        for _ in range(20):
            queue.push(b"bulk", packet(1500, now))
        for _ in range(20):  # all leave within the interval
            assert queue.pop(now + 0.02) is not None
        now += 0.05
    assert not queue.dropped


def test_what_is_old_nobody_wants_any_more() -> None:
    queue = FairQueue()
    queue.push(b"a", numbered(1, now=0.0))
    queue.push(b"a", numbered(2, now=STALE))
    assert number(queue.pop(STALE + 0.001)) == 2
    assert queue.dropped == {"stale": 1}


def test_clearing_counts_what_it_drops() -> None:
    queue = FairQueue()
    for at in range(5):
        queue.push(b"a", numbered(at))
    queue.clear("down")
    assert queue.dropped == {"down": 5}
    assert not queue
    queue.push(b"a", numbered(9))
    assert number(queue.pop(0.0)) == 9


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(44, 70), st.booleans()), max_size=200))
def test_nothing_is_lost_or_doubled_and_each_flow_stays_in_order(
    steps: list[tuple[int, int, bool]],
) -> None:
    queue = FairQueue()
    pushed: dict[int, list[int]] = {flow: [] for flow in range(5)}
    popped: dict[int, list[int]] = {flow: [] for flow in range(5)}

    def pop() -> None:
        taken = queue.pop(0.0)
        if taken is not None:
            popped[number(taken) >> 16].append(number(taken) & 0xFFFF)

    for flow, size, take in steps:
        at = len(pushed[flow])
        pushed[flow].append(at)
        queue.push(bytes([flow]), numbered(flow << 16 | at, size))
        if take:
            pop()
    while queue:
        pop()
    assert popped == pushed
    assert queue.bytes == queue.packets == 0
    assert not queue.dropped
