"""Selectors: what each form matches, that what is shown means the same, and that nothing hostile gets far."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viscript import selectors
from viscript.errors import BadUsage
from viscript.selectors import And, Field, Name, Not, Or, parse, select


@dataclass(frozen=True)
class Launch:
    id: int
    app: str
    state: str = "running"
    host: str = "here"
    groups: tuple[str, ...] = ()
    instance: int | None = None


LAUNCHES = [
    Launch(1, "web-a", groups=("front",)),
    Launch(2, "web-b", "failed", groups=("front", "old")),
    Launch(3, "db", host="there"),
    Launch(4, "worker", instance=0),
    Launch(5, "worker", "backoff", instance=1),
    Launch(10, "one"),
]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("web*", [1, 2]),
        ("web-a", [1]),
        ("web-?", [1, 2]),
        ("[dw]*", [1, 2, 3, 4, 5]),
        ("1", [1]),
        ("1 3", [1, 3]),
        ("1 3 web*", [1, 2, 3]),
        ("@front", [1, 2]),
        ("@fr*", [1, 2]),
        ("there:db", [3]),
        ("there:*", [3]),
        ("t*:3", [3]),
        ("here:db", []),
        ("worker:0", [4]),
        ("worker:1", [5]),
        ("here:worker:1", [5]),
        ("there:worker:1", []),
        ("state=failed", [2]),
        ("state=failed,backoff", [2, 5]),
        ("state!=running", [2, 5]),
        ("group!=old", [1, 3, 4, 5, 10]),
        ("host=there or id=1", [1, 3]),
        ("app=web* and not state=failed", [1]),
        ("web* and (state=failed or 1)", [1, 2]),
        ("not (web* or worker)", [3, 10]),
        ("not not db", [3]),
        ("1 web* and state=failed", [1, 2]),
        ("app=and", []),
        ("nothing", []),
        ("*", [1, 2, 3, 4, 5, 10]),
    ],
)
def test_what_is_selected(text, ids):
    assert [launch.id for launch in select(parse(text), LAUNCHES)] == ids
    assert [launch.id for launch in select(parse(text.split()), LAUNCHES)] == ids


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "nothing is selected"),
        ("  ", "nothing is selected"),
        ("and", "'and' has nothing before it"),
        ("a and", "missing at the end"),
        ("a or or b", "'or' has nothing before it"),
        ("not", "missing at the end"),
        ("(a", "a closing ) is missing"),
        ("a)", "an opening ( is missing"),
        ("()", "')' has nothing before it"),
        ("@", "name of a group"),
        ("state=", "no such field"),
        ("stat=failed", "no such field; fields are app, group"),
        ("state=,", "no value"),
        ("a:", "HOST:APP"),
        (":a", "HOST:APP"),
        ("a:b:c:d", "HOST:APP"),
        ("a" * 5000, "at most 4096"),
        ("(" * 1000, "nested more than 32"),
        ("not " * 1000, "nested more than 32"),
    ],
)
def test_what_cannot_be_meant_is_said(text, problem):
    with pytest.raises(BadUsage, match=problem.replace("(", r"\(").replace(")", r"\)")):
        parse(text)


def test_only_plain_words_are_names():
    assert [str(name) for name in selectors.named(parse("a 3 h:b"))] == ["a", "3", "h:b"]
    for text in ("a*", "a and b", "not a", "@g", "state=failed", "a b*"):
        assert selectors.named(parse(text)) == []


words = st.text("abcz019*?-_.", min_size=1, max_size=6).filter(
    lambda word: word not in {"and", "or", "not"}
)
names = st.one_of(
    st.builds(Name, words),
    st.builds(Name, words, words),
    st.builds(Name, words, words, words),
)
fields = st.builds(
    Field,
    st.sampled_from(selectors.FIELDS),
    st.lists(words, min_size=1, max_size=3, unique=True).map(tuple),
    st.booleans(),
)


def _several(inner):
    many = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Not, inner),
        st.builds(And, many),
        st.builds(Or, many),
    )


trees = st.recursive(st.one_of(names, fields), _several, max_leaves=8)
launches = st.builds(
    Launch, st.integers(0, 30), words, st.sampled_from(["running", "failed", "a"]), words,
    st.lists(words, max_size=2).map(tuple), st.none() | st.integers(0, 3),
)  # fmt: skip


@given(trees, launches)
def test_what_is_shown_selects_the_same(tree, launch):
    again = parse(str(tree))
    assert again.matches(launch) == tree.matches(launch)
    assert str(parse(str(again))) == str(again)


@given(trees, trees, launches)
def test_and_or_not_are_what_logic_says(a, b, launch):
    def holds(text):
        return parse(text).matches(launch)

    assert holds(f"not ({a} or {b})") == holds(f"not ({a}) and not ({b})")
    assert holds(f"({a}) and ({b})") == (a.matches(launch) and b.matches(launch))
    assert holds(f"({a}) ({b})") == (a.matches(launch) or b.matches(launch))


@given(st.text(max_size=200) | st.text("()=:@ andortz,!*[]", max_size=200))
def test_anything_typed_is_understood_or_refused(text):
    try:
        found = parse(text)
    except BadUsage:
        return
    for launch in LAUNCHES:
        assert found.matches(launch) in {True, False}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("w", "web-a"),
        ("w or db", "web-a or db"),
        ("not w", "not web-a"),
        ("h:w:1", "h:web-a:1"),
        ("h:w", "h:web-a"),
        ("w:1", "web-a:1"),
        ("w*", "w*"),
        ("app=w", "app=w"),
    ],
)
def test_an_alias_means_its_app_wherever_a_name_stands(text, same):
    assert parse(text, {"w": "web-a"}) == parse(same)
