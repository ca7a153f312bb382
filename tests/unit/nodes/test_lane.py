"""Those who wait to send stand in line: one frame a turn, and nobody passes them."""

from types import SimpleNamespace

import pytest

from nodes.capacity import Capacity
from nodes.lane import Lane
from nodes.mesh import Onward


class Road:
    """A link of which each connection takes so many frames; `busy` says which are full."""

    def __init__(self) -> None:
        self.busy: set[int] = set()

    def connection(self, label: int, lane: int) -> int:
        return 1 + (label + lane) % 4

    def full(self, label: int, lane: int) -> bool:
        return self.connection(label, lane) in self.busy


class Sender:
    """Sends three frames, as many in a row as it may."""

    def __init__(self, lane: Lane, number: int, sent: list[int], lately: int = 1 << 30) -> None:
        self.stream = SimpleNamespace(number=number, lane=1, lately=lately, slot=0)
        self._lane, self._sent, self._left = lane, sent, 3

    def unpark(self) -> None:
        while self._left:
            if not self._lane.ready(self.stream):
                self._lane.park(self, self.stream)
                return
            self._left -= 1
            self._sent.append(self.stream.number)


@pytest.fixture
def road() -> Road:
    return Road()


@pytest.fixture
def lane(road: Road) -> Lane:
    lanes = tuple(SimpleNamespace(waiting=[]) for _ in range(5))
    outgoing = SimpleNamespace(
        room=1 << 20,
        lanes=lanes,
        take_waiting=lambda _lane: None,
        acknowledged_bytes=0,
        capacity=Capacity(),
    )
    session = SimpleNamespace(up=True, outgoing=outgoing, flows=SimpleNamespace(outbox=[]))
    lane = Lane("peer", session, lambda: 0.0)
    lane.bind(road, Onward("neighbour", 4))
    return lane


def test_each_in_line_sends_one_frame_a_turn_until_nobody_waits(lane: Lane, road: Road) -> None:
    sent: list[int] = []
    road.busy = {2}
    for number in range(3):
        Sender(lane, number, sent).unpark()
    assert sent == []
    road.busy = set()
    lane.resume()
    assert sent == [0, 1, 2] * 3


def test_who_comes_later_stands_behind_those_who_wait(lane: Lane, road: Road) -> None:
    sent: list[int] = []
    road.busy = {2}
    Sender(lane, 0, sent).unpark()
    road.busy = set()
    Sender(lane, 1, sent).unpark()
    assert sent == []
    lane.resume()
    assert sent[:2] == [0, 1]


def test_a_connection_that_is_free_again_wakes_only_its_own_lanes(lane: Lane, road: Road) -> None:
    sent: list[int] = []
    road.busy = {1, 2, 3, 4}
    Sender(lane, 0, sent).unpark()
    road.busy = set()
    lane.resume_on(3)
    assert sent == []
    lane.resume_on(2)
    assert sent == [0, 0, 0]


def test_who_sends_little_passes_those_who_send_much(lane: Lane, road: Road) -> None:
    sent: list[int] = []
    road.busy = {2}
    Sender(lane, 0, sent).unpark()
    Sender(lane, 1, sent, lately=100).unpark()
    road.busy = set()
    Sender(lane, 2, sent, lately=100).unpark()
    assert sent == [2, 2, 2]
    lane.resume()
    assert sent[3:] == [1, 1, 1, 0, 0, 0]


def test_who_sends_little_has_room_when_the_session_has_none(lane: Lane) -> None:
    sent: list[int] = []
    lane.session.outgoing.room = 0  # type: ignore[misc]
    for number, lately in enumerate([1 << 30, 100]):
        Sender(lane, number, sent, lately).unpark()
    assert sent == [1, 1, 1]
