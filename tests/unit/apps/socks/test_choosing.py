from hypothesis import given
from hypothesis import strategies as st

from apps.socks.choosing import FAILED_EVERY, OTHERS_EVERY, USED_EVERY, Choice, Exit

A, B, C = Exit("a", 3), Exit("b", 3), Exit("c", 4)


def fastest(**seconds: float) -> Choice:
    """Exits that are on offer and were measured."""
    choice = Choice()
    choice.offered((Exit(name, 3), 0) for name in seconds)
    for name, each in seconds.items():
        choice.answered(Exit(name, 3), each)
    return choice


def test_named_exits_are_taken_in_their_order():
    assert Choice([B, A, C]).order() == [B, A, C]


def test_one_that_failed_comes_last_until_it_answers():
    choice = Choice([A, B, C])
    choice.failed(A, 0)
    assert choice.order() == [B, C, A]
    choice.answered(A, 9.0)
    assert choice.order() == [A, B, C]


def test_when_all_have_failed_all_are_tried():
    choice = Choice([A, B])
    choice.failed(A, 0)
    choice.failed(B, 0)
    assert choice.order() == [A, B]


def test_the_fastest_is_the_one_with_the_shortest_round_trip():
    assert fastest(a=0.03, b=0.01, c=0.02).order()[0].target == "b"


def test_the_shortest_of_the_last_three_counts():
    choice = fastest(a=0.03, b=0.05)
    for seconds in (0.01, 0.5, 0.5):
        choice.answered(B, seconds)
    assert choice.order()[0] == B
    choice.answered(B, 0.5)
    assert choice.order()[0] == A


def test_who_is_loaded_must_be_so_much_faster():
    choice = fastest(a=0.015, b=0.02)
    choice.offered([(A, 0.9), (B, 0.0)])
    assert choice.order()[0] == B
    choice.offered([(A, 0.0), (B, 0.96)])
    assert choice.order()[0] == A


def test_one_in_use_is_left_only_for_one_that_is_clearly_better():
    choice = fastest(a=0.020, b=0.030)
    assert choice.order()[0] == A
    choice.answered(B, 0.018)
    assert choice.order()[0] == A
    choice.answered(B, 0.014)
    assert choice.order()[0] == B


def test_one_in_use_is_left_when_it_fails():
    choice = fastest(a=0.01, b=0.5)
    assert choice.order()[0] == A
    choice.failed(A, 0)
    assert choice.order() == [B, A]


def test_those_that_were_never_measured_come_after_those_that_were():
    choice = fastest(b=5.0)
    choice.offered([(A, 0), (B, 0)])
    assert choice.order() == [B, A]


def test_what_is_no_longer_on_offer_is_forgotten():
    choice = fastest(a=0.01, b=0.02)
    choice.order()
    choice.offered([(B, 0)])
    assert choice.order() == [B]
    choice.offered([])
    assert choice.order() == []
    choice.answered(A, 1)
    choice.failed(A, 0)
    assert choice.order() == []


def test_a_single_named_exit_is_never_probed():
    assert Choice([A]).due(1e9) == []


def test_the_one_in_use_is_probed_more_often_and_one_that_failed_most():
    choice = Choice([A, B, C])
    assert choice.due(0) == [A, B, C]
    choice.failed(C, 0)
    assert choice.due(FAILED_EVERY) == [C]
    assert choice.due(USED_EVERY) == [A]
    assert set(choice.due(OTHERS_EVERY)) == {A, B, C}


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("answered"), st.sampled_from([A, B, C]), st.floats(0, 10)),
        st.tuples(st.just("failed"), st.sampled_from([A, B, C]), st.floats(0, 1e6)),
        st.tuples(
            st.just("offered"),
            st.lists(st.tuples(st.sampled_from([A, B, C]), st.floats(0, 1)), max_size=4),
        ),
    ),
    max_size=30,
)


@given(EVENTS, st.sampled_from([[], [A], [A, B], [C, B, A]]))
def test_every_exit_stands_in_the_order_once_whatever_happens(events: list, named: list[Exit]):
    choice = Choice(named)
    for what, *about in events:
        if what != "offered" or choice.fastest:
            getattr(choice, what)(*about)
        order = choice.order()
        assert len(order) == len(set(order)) == len(choice)
        if named:
            assert set(order) == set(named)
