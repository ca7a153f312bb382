"""Whose turn it is, against a list in the order of coming."""

from hypothesis import given
from hypothesis import strategies as st

from nodes.acks import LANES
from nodes.turns import Turns

LANE = st.integers(0, LANES - 1)
ADD = st.tuples(st.just("add"), LANE, st.booleans())
NEXT = st.tuples(st.just("next"), st.lists(LANE, unique=True), st.booleans())


class Somebody:
    def __init__(self, lane: int, *, urgent: bool) -> None:
        self.lane, self.urgent = lane, urgent

    def unpark(self) -> None:
        raise AssertionError("whose turn it is calls nobody")


@given(st.lists(ADD | NEXT, max_size=60))
def test_it_is_the_turn_of_the_first_that_is_urgent_else_of_the_first(
    steps: list[tuple[str, object, bool]],
) -> None:
    turns = Turns()
    line: list[Somebody] = []
    for what, lanes, flag in steps:
        if what == "add":
            assert isinstance(lanes, int)
            line.append(Somebody(lanes, urgent=flag))
            turns.add(line[-1], lanes, urgent=flag)
        else:
            assert isinstance(lanes, list)
            may = [one for one in line if one.lane in lanes]
            urgent = [one for one in may if one.urgent]
            due = (urgent if flag else urgent or may)[:1]
            given_turn = turns.next(lanes, only_urgent=flag)
            assert [given_turn] == (due or [None])
            line = [one for one in line if one is not given_turn]
        assert turns.count == len(line)
        for lane in range(LANES):
            assert turns.wait(lane) == any(one.lane == lane for one in line)


@given(st.lists(st.tuples(LANE, st.booleans()), max_size=60))
def test_everybody_who_waits_has_one_turn(waiting: list[tuple[int, bool]]) -> None:
    turns = Turns()
    everybody = [Somebody(lane, urgent=urgent) for lane, urgent in waiting]
    for one in everybody:
        turns.add(one, one.lane, urgent=one.urgent)
    had = []
    while (one := turns.next(range(LANES))) is not None:
        had.append(one)
    assert had == [
        *(one for one in everybody if one.urgent),
        *(one for one in everybody if not one.urgent),
    ]
