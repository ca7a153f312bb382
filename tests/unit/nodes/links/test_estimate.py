"""What a link is like, out of single measurements."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from nodes.links import tcp
from nodes.links.estimate import BUSY, RECENT, RoundTrip, TcpInfo, Throughput


def info(acked: int, rate: int = 0, again: int = 0, *, limited: bool = False) -> TcpInfo:
    return TcpInfo(0.01, 0.001, again, acked, 0, rate, limited)


def test_what_was_slow_at_the_beginning_is_forgotten_with_the_first_that_is_not() -> None:
    trip = RoundTrip()
    trip.answered(trip.ask(10.0), 10.8)
    assert round(trip.shortest or 0, 6) == 0.8
    trip.answered(trip.ask(11.0), 11.02)
    assert round(trip.shortest or 0, 6) == 0.02


def test_a_link_that_became_longer_is_known_to_be_after_some_round_trips() -> None:
    trip = RoundTrip()
    for second in range(RECENT + 1):
        assert round(trip.shortest or 0, 6) == (0.01 if second else 0)
        trip.answered(trip.ask(second), second + (0.2 if second else 0.01))
    assert round(trip.shortest or 0, 6) == 0.2


def test_an_answer_that_was_not_asked_for_is_ignored() -> None:
    trip = RoundTrip()
    counter = trip.ask(10.0)
    trip.answered(counter - 5, 10.1)
    trip.answered(0, 10.1)
    assert trip.shortest is None
    trip.answered(counter, 10.1)
    trip.answered(counter, 99.0)
    assert round(trip.shortest or 0, 6) == 0.1


@given(st.lists(st.floats(0, 3), min_size=1, max_size=50))
def test_a_round_trip_stays_within_what_was_measured(samples: list[float]) -> None:
    trip, now = RoundTrip(), 0.0
    for sample in samples:
        now += 10
        trip.answered(trip.ask(now), now + sample)
    assert trip.shortest is not None
    assert min(samples) - 1e-5 <= trip.shortest <= max(samples) + 1e-5
    assert trip.variation >= 0


def test_the_rate_is_the_sum_of_the_busy_connections() -> None:
    flow = Throughput()
    flow.sample([(0, info(0)), (1, info(0)), (2, info(0))], 1)
    assert flow.rate is None
    flow.sample([(0, info(BUSY, 100)), (1, info(BUSY, 50)), (2, info(10, 999))], 1)
    assert flow.rate == 150


def test_a_rate_falls_only_when_it_was_the_network_that_limited_it() -> None:
    flow = Throughput()
    flow.sample([(0, info(BUSY, 1000))], 1)
    flow.sample([(0, info(2 * BUSY, 10, limited=True))], 1)
    assert flow.rate == 1000
    flow.sample([(0, info(3 * BUSY, 200))], 1)
    assert flow.rate == 800


def test_retransmissions_are_counted_a_second_and_forgotten() -> None:
    flow = Throughput()
    flow.sample([(0, info(0, again=40)), (1, None)], 1)
    assert flow.retransmits == 10
    for _ in range(30):
        flow.sample([(0, info(0, again=40))], 1)
    assert flow.retransmits < 0.1


def test_the_kernels_figures_are_read_from_their_places() -> None:
    raw = bytearray(232)
    raw[7] = 1
    for place, value in ((8 + 4 * 15, 20_000), (8 + 4 * 16, 5_000), (8 + 4 * 23, 7)):
        struct.pack_into("=I", raw, place, value)
    struct.pack_into("=Q", raw, 104 + 16, 123)
    struct.pack_into("=I", raw, 136 + 8, 55)
    struct.pack_into("=Q", raw, 160, 10**10)
    assert tcp.parse_info(bytes(raw)) == TcpInfo(0.02, 0.005, 7, 123, 55, 10**10, app_limited=True)
    assert tcp.parse_info(bytes(100)) is None
