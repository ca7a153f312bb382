from hypothesis import given
from hypothesis import strategies as st

from apps.socks.remotes import FORGET, GRANT, MAX_REMOTES, MOST, Remotes

HERE = ("192.0.2.1", 53)


def test_nothing_comes_back_before_something_was_sent():
    remotes = Remotes()
    assert not remotes.may_return(HERE, 1, 0)
    remotes.sent(HERE, 0)
    assert remotes.may_return(HERE, 1, 0)


def test_another_port_and_another_host_may_not_answer():
    remotes = Remotes()
    remotes.sent(HERE, 0)
    assert not remotes.may_return(("192.0.2.1", 54), 1, 0)
    assert not remotes.may_return(("192.0.2.2", 53), 1, 0)


def test_one_question_is_no_licence_to_flood():
    remotes = Remotes()
    remotes.sent(HERE, 0)
    passed = sum(1200 for _ in range(10_000) if remotes.may_return(HERE, 1200, 1))
    assert GRANT - 1200 < passed <= GRANT
    remotes.sent(HERE, 2)
    assert remotes.may_return(HERE, 1200, 2)


def test_very_many_questions_are_not_saved_up():
    remotes = Remotes()
    for _ in range(100):
        remotes.sent(HERE, 0)
    passed = sum(60_000 for _ in range(1000) if remotes.may_return(HERE, 60_000, 1))
    assert passed <= MOST


def test_a_place_is_forgotten_after_a_while_and_with_it_what_it_might_have_sent():
    remotes = Remotes()
    for _ in range(5):
        remotes.sent(HERE, 0)
    assert not remotes.may_return(HERE, 1, FORGET)
    remotes.sent(HERE, FORGET)
    assert not remotes.may_return(HERE, GRANT + 1, FORGET)


def test_of_very_many_places_those_sent_to_last_are_known():
    remotes = Remotes()
    for port in range(1, MAX_REMOTES + 11):
        remotes.sent(("192.0.2.1", port), 0)
    assert len(remotes) == MAX_REMOTES
    assert not remotes.may_return(("192.0.2.1", 10), 1, 0)
    assert remotes.may_return(("192.0.2.1", 11), 1, 0)


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 3), st.integers(0, 60_000), st.floats(0, 100)),
        max_size=60,
    )
)
def test_what_comes_back_is_never_more_than_what_was_earned(
    steps: list[tuple[bool, int, int, float]],
):
    remotes, now = Remotes(), 0.0
    sent = dict.fromkeys((1, 2, 3), 0)
    returned = dict.fromkeys((1, 2, 3), 0)
    for out, port, size, pause in steps:
        now += pause
        if out:
            remotes.sent(("192.0.2.1", port), now)
            sent[port] += 1
        elif remotes.may_return(("192.0.2.1", port), size, now):
            returned[port] += size
    assert all(returned[port] <= sent[port] * GRANT for port in sent)
