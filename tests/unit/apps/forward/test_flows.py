"""Who talked lately: the longest silent goes first, and never more than so many."""

from hypothesis import given
from hypothesis import strategies as st

from apps.forward.flows import Flows


def test_who_is_silent_goes_and_who_talks_stays() -> None:
    flows: Flows[str, str] = Flows(limit=10, idle=60)
    flows.add("a", "A", 0)
    flows.add("b", "B", 1)
    assert flows.get("a", 30) == "A"
    assert flows.expire(60) == []
    assert flows.expire(61) == ["B"]
    assert flows.get("b", 61) is None
    assert flows.expire(90) == ["A"]


def test_a_new_one_takes_the_place_of_the_longest_silent() -> None:
    flows: Flows[str, str] = Flows(limit=2, idle=60)
    assert flows.add("a", "A", 0) == []
    assert flows.add("b", "B", 1) == []
    flows.get("a", 2)
    assert flows.add("c", "C", 3) == ["B"]
    assert flows.clear() == ["A", "C"]
    assert len(flows) == 0


def test_who_has_many_takes_no_room_from_others() -> None:
    flows: Flows[str, str] = Flows(limit=3, idle=60, whose=lambda talker: talker[0])
    flows.add("quiet 1", "q", 0)
    assert flows.add("many 1", "1", 1) == flows.add("many 2", "2", 2) == []
    assert flows.add("many 3", "3", 3) == ["1"]
    assert flows.add("x", "x", 4) == ["2"]
    assert flows.add("y", "y", 5) == ["q"]  # all have one: the longest silent
    assert flows.clear() == ["3", "x", "y"]
    assert flows.add("many 4", "4", 6) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20))))
def test_never_more_than_the_limit_and_everything_goes_once(talk: list[tuple[int, int]]) -> None:
    flows: Flows[int, int] = Flows(limit=4, idle=30)
    now, made, gone = 0, [], []
    for number, (key, pause) in enumerate(talk):
        now += pause
        gone += flows.expire(now)
        if flows.get(key, now) is None:
            gone += flows.add(key, number, now)
            made.append(number)
        assert len(flows) <= 4
    assert sorted(gone + flows.clear()) == made
