"""What is shown of others cannot steer a terminal."""

from hypothesis import given
from hypothesis import strategies as st

from viscript.words import clean, did_you_mean


def test_control_sequences_are_taken_out():
    assert clean("\x1b[31mred\x1b[0m") == "red"
    assert clean("\x1b]0;title\x07text") == "text"
    assert clean("\x1b]8;;http://x\x1b\\link") == "link"
    assert clean("a\x9b31mb\rc\x08d\x07") == "a31mbcd"
    assert clean("one\ttwo\nthree äöü 漢") == "one\ttwo\nthree äöü 漢"
    assert clean("abc\u202edef") == "abcdef"


@given(st.text())
def test_nothing_that_steers_is_left(text):
    assert not set(clean(text)) & {chr(c) for c in [*range(9), *range(11, 32), *range(127, 160)]}


def test_suggestions():
    assert did_you_mean("strat", ["start", "list"]) == "; did you mean 'start'?"
    assert did_you_mean("zzz", ["start"]) == ""
