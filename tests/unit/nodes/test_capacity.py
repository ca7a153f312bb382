"""A session's window follows what its way carries: over roads of given rate, length and traffic."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

import pytest

from nodes.capacity import FIRST, LEAST, Capacity
from nodes.delivery import Incoming
from nodes.wire import MAX_SESSION_WINDOW

FRAME = 16 * 1024
TELL = 1.0  # s between two times that a sender tells of itself


class Road:
    """One bottleneck, and the way around it: what several senders put on it goes in turn."""

    def __init__(self, rate: float, round_trip: float) -> None:
        self.rate, self.round_trip = rate, round_trip
        self.jitter = 0.0  # s
        self.now = 100.0
        self._last = 0.0
        self._draw = random.Random(1)
        self._free = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), call))

    def carry(self, size: int, arrived: Callable[[], None]) -> None:
        self._free = max(self._free, self.now) + size / self.rate
        self.late(self._free + self.round_trip / 2, arrived)

    def late(self, when: float, call: Callable[[], None]) -> None:
        """In order, but nodes take their time."""
        self._last = max(when + self._draw.uniform(0, self.jitter), self._last)
        self.at(self._last, call)

    @property
    def queued(self) -> float:
        """Seconds that what is put on it now would wait."""
        return max(self._free - self.now, 0.0)

    def go_on(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, call = heapq.heappop(self._due)
            call()
        self.now = until


class Sender:
    """One session that sends as much as it may, `most` bytes a second at most, and its far end."""

    def __init__(self, road: Road, most: float = float("inf")) -> None:
        self.road, self.most = road, most
        self.capacity = Capacity()
        self.kept = self.arrived = 0
        self._began = road.now
        self._sent = 0
        self._far = Incoming()
        self._counter = itertools.count(1)
        self._echo = (0.0, 0.0)  # the sender's newest time and when it came to the far end
        self._tell()
        road.at(road.now, self._send)

    def _tell(self) -> None:
        told = self.road.now

        def came() -> None:
            self._echo = max(self._echo, (told, self.road.now))

        self.road.carry(72, came)

    def keep_alive(self) -> None:
        self._tell()
        self.road.at(self.road.now + TELL, self.keep_alive)

    def _send(self) -> None:
        capacity = self.capacity
        while self.kept < capacity.window:
            ready_at = self._began + self._sent / self.most
            if ready_at > self.road.now:
                self.road.at(ready_at, self._send)
                return
            if not self.kept:
                capacity.woke(self.road.now)
            self.kept += FRAME
            self._sent += FRAME
            self.road.carry(FRAME, self._came)
        capacity.press()

    def _came(self) -> None:
        far, now = self._far, self.road.now
        self.arrived += FRAME
        assert far.in_turn(1, next(self._counter), FRAME, now, 0.1)
        if far.ack_due <= now:
            self._acknowledge()
        else:
            self.road.at(far.ack_due, self._late)

    def _late(self) -> None:
        if self._far.ack_due <= self.road.now and self._far.arrived:
            self._acknowledge()

    def _acknowledge(self) -> None:
        far, now, (told, came) = self._far, self.road.now, self._echo
        size, held = far.arrived, now - came
        far.ack_due = float("inf")
        far.told(now)

        def back() -> None:
            now = self.road.now
            if told:
                self.capacity.timed(now - told - held, told, now)
            under_way, self.kept = self.kept, self.kept - size
            self.capacity.acknowledged(size, under_way, now)
            if self.capacity.asks(now):
                self._tell()
            self._send()

        self.road.at(now + self.road.round_trip / 2, back)


def moved(road: Road, senders: list[Sender], seconds: float) -> tuple[list[float], float]:
    """Bytes a second of each, and the queue in s that is longer only for a hundredth of the time."""
    before, queues = [sender.arrived for sender in senders], []
    for _ in range(int(seconds * 200)):
        road.go_on(0.005)
        queues.append(road.queued)
    rates = [(s.arrived - b) / seconds for s, b in zip(senders, before, strict=True)]
    return rates, sorted(queues)[-len(queues) // 100]


def begin(road: Road, count: int = 1) -> list[Sender]:
    senders = [Sender(road) for _ in range(count)]
    for sender in senders:
        sender.keep_alive()
    return senders


WAYS = [(6.25e6, 0.04), (1.25e6, 0.1), (0.25e6, 0.03), (50e6, 0.02), (100e6, 0.1), (200e6, 0.001)]


@pytest.mark.parametrize(("rate", "round_trip"), WAYS)
def test_a_way_is_filled_and_its_queue_stays_short(rate: float, round_trip: float) -> None:
    road = Road(rate, round_trip)
    senders = begin(road)
    road.go_on(5)
    rates, queue = moved(road, senders, 30)
    assert rates[0] > 0.93 * rate
    assert queue < 0.02 + 0.15 * round_trip + 4 * FRAME / rate
    assert LEAST <= senders[0].capacity.window <= MAX_SESSION_WINDOW


@pytest.mark.parametrize(("rate", "round_trip"), WAYS)
def test_a_way_is_full_soon(rate: float, round_trip: float) -> None:
    road = Road(rate, round_trip)
    senders = begin(road)
    road.go_on(0.5 + 10 * round_trip)
    rates, _ = moved(road, senders, 2)
    assert rates[0] > 0.8 * rate


@pytest.mark.parametrize(("rate", "round_trip"), WAYS)
@pytest.mark.parametrize("jitter", [0.02, 0.1])
def test_a_way_whose_nodes_are_slow_at_times_is_filled_too(
    rate: float, round_trip: float, jitter: float
) -> None:
    road = Road(rate, round_trip)
    senders = begin(road)
    road.go_on(5)
    road.jitter = jitter
    road.go_on(5)
    rates, _ = moved(road, senders, 20)
    # Not as full as a way whose length is known, but the rate does not fall and fall.
    assert rates[0] > 0.25 * min(rate, MAX_SESSION_WINDOW / (round_trip + jitter))


def test_the_window_narrows_when_the_way_becomes_slower() -> None:
    road = Road(50e6, 0.04)
    senders = begin(road)
    road.go_on(5)
    wide = senders[0].capacity.window
    road.rate = 5e6
    road.go_on(5)
    assert senders[0].capacity.window < wide / 4
    _, queue = moved(road, senders, 10)
    assert queue < 0.05


def test_the_window_widens_when_the_way_becomes_faster() -> None:
    road = Road(5e6, 0.04)
    senders = begin(road)
    road.go_on(5)
    road.rate = 50e6
    road.go_on(5)
    rates, _ = moved(road, senders, 5)
    assert rates[0] > 45e6


def test_a_way_that_becomes_longer_is_filled_again() -> None:
    road = Road(20e6, 0.01)
    senders = begin(road)
    road.go_on(5)
    road.round_trip = 0.08
    road.go_on(5)
    rates, queue = moved(road, senders, 10)
    assert rates[0] > 0.9 * road.rate
    assert queue < 0.05


def test_sessions_that_share_a_way_all_get_some_and_the_queue_stays_bounded() -> None:
    road = Road(12.5e6, 0.04)
    senders = begin(road, 3)
    road.go_on(10)
    senders += begin(road)  # when the others have all of it
    road.go_on(20)
    rates, queue = moved(road, senders, 60)
    assert sum(rates) > 0.9 * road.rate
    assert min(rates) > 0.25 * road.rate / len(senders)
    assert queue < 1.0  # windows of 4 MiB that only grow would keep 1.3 s


def test_who_sends_little_keeps_the_window_that_was_learned() -> None:
    road = Road(12.5e6, 0.04)
    (sender,) = begin(road)
    road.go_on(5)
    learned = sender.capacity.window
    sender.most, sender._began, sender._sent = 1e6, road.now, 0
    road.go_on(30)
    assert sender.capacity.window > 0.8 * learned


def test_nothing_is_known_at_first_and_on_another_way() -> None:
    capacity = Capacity()
    assert capacity.window == FIRST
    capacity.acknowledged(1000, 1000, 5.0)
    assert not capacity.asks(5.0)
    assert capacity.window == FIRST
    assert capacity.rate == 0.0
