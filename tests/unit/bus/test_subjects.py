"""Grammar, matching and covering, against a naive matcher."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.subjects import SubjectTree, covers, is_pattern, is_subject, overlaps

tokens = st.sampled_from(["a", "b", "ab", "$SYS", "x-1"])
subjects = st.lists(tokens, min_size=1, max_size=5).map(".".join)
patterns = st.builds(
    lambda body, last: ".".join([*body, last]),
    st.lists(tokens | st.just("*"), max_size=4),
    tokens | st.sampled_from(["*", ">"]),
)


def matches(pattern: str, subject: str) -> bool:
    """The definition, as plainly as it can be put."""
    wanted, got = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        if len(got) < len(wanted):
            return False
        wanted, got = wanted[:-1], got[: len(wanted) - 1]
    return len(wanted) == len(got) and all(w in ("*", g) for w, g in zip(wanted, got, strict=True))


# All of up to three tokens, and all subjects that can tell them apart.
SHORT_PATTERNS = [
    ".".join([*body, last])
    for length in range(3)
    for body in itertools.product("ab*", repeat=length)
    for last in "ab*>"
]
SHORT_SUBJECTS = [
    ".".join(words) for length in range(1, 5) for words in itertools.product("abc", repeat=length)
]


def matched_by(pattern: str) -> list[str]:
    return [subject for subject in SHORT_SUBJECTS if matches(pattern, subject)]


@pytest.mark.parametrize("text", ["a", "A_b-9.$SYS", ".".join("a" * 16), "x" * 255])
def test_subjects(text: str) -> None:
    assert is_subject(text)
    assert is_pattern(text)


@pytest.mark.parametrize("text", ["*", ">", "a.*", "*.a", "a.*.>", ".".join("*" * 16)])
def test_patterns_that_are_no_subjects(text: str) -> None:
    assert is_pattern(text)
    assert not is_subject(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a..b", "a b", "a\n", "ä", "a.>.b", ">.a", "a*", "*a", "a.b>", "a\x00",
     "x" * 256, ".".join("a" * 17), "\u0661"],
)  # fmt: skip
def test_neither_subjects_nor_patterns(text: str) -> None:
    assert not is_subject(text)
    assert not is_pattern(text)


@given(subjects | st.text(max_size=20))
@settings(deadline=None)
def test_every_subject_is_a_pattern_and_covers_itself(text: str) -> None:
    if is_subject(text):
        assert is_pattern(text)
        assert covers(text, text)


@given(patterns, subjects)
@settings(deadline=None, max_examples=300)
def test_a_pattern_covers_a_subject_if_and_only_if_it_matches_it(
    pattern: str, subject: str
) -> None:
    assert covers(pattern, subject) == matches(pattern, subject)


@pytest.mark.parametrize("wide", SHORT_PATTERNS)
def test_a_pattern_covers_another_if_and_only_if_it_matches_all_that_the_other_does(
    wide: str,
) -> None:
    for narrow in SHORT_PATTERNS:
        assert covers(wide, narrow) == all(matches(wide, s) for s in matched_by(narrow)), narrow


@given(patterns)
@settings(deadline=None)
def test_the_greatest_pattern_covers_all_and_nothing_less_covers_it(pattern: str) -> None:
    assert covers(">", pattern)
    assert covers(pattern, ">") == (pattern == ">")


@given(st.lists(patterns, max_size=30), st.lists(subjects, max_size=10), st.data())
@settings(deadline=None)
def test_the_tree_finds_what_the_naive_matcher_finds(
    held: list[str], asked: list[str], data: st.DataObject
) -> None:
    tree: SubjectTree[int] = SubjectTree()
    kept = dict(enumerate(held))
    for number, pattern in kept.items():
        tree.add(pattern, number)
    for number in data.draw(st.sets(st.sampled_from(sorted(kept)))) if kept else ():
        tree.remove(kept.pop(number), number)
    for subject in asked * 2:  # the second time from memory
        expected = sorted(n for n, p in kept.items() if matches(p, subject))
        assert sorted(tree.match(subject)) == expected


@given(st.lists(patterns, max_size=20, unique=True))
@settings(deadline=None)
def test_a_tree_from_which_all_was_removed_holds_nothing(held: list[str]) -> None:
    tree: SubjectTree[str] = SubjectTree()
    for pattern in held:
        tree.add(pattern, pattern)
    for pattern in reversed(held):
        tree.remove(pattern, pattern)
    assert tree._root.empty


def test_a_change_is_seen_at_once_although_matches_are_remembered() -> None:
    tree: SubjectTree[int] = SubjectTree()
    tree.add("a.*", 1)
    assert tree.match("a.b") == [1]
    tree.add("a.>", 2)
    assert sorted(tree.match("a.b")) == [1, 2]
    tree.remove("a.*", 1)
    assert tree.match("a.b") == [2]


def test_the_memory_of_a_tree_is_bounded() -> None:
    tree: SubjectTree[int] = SubjectTree()
    for number in range(5000):
        tree.match(f"a.{number}")
    assert len(tree._remembered) <= 1024


@pytest.mark.parametrize("one", SHORT_PATTERNS)
def test_patterns_overlap_if_and_only_if_they_match_the_same_subject(one: str) -> None:
    for other in SHORT_PATTERNS:
        assert overlaps(one, other) == any(matches(one, s) for s in matched_by(other)), other


@given(patterns, patterns)
def test_patterns_that_overlap_match_a_common_subject(one: str, other: str) -> None:
    """The subject is put together from both: where one leaves a token open, the other names it."""
    assert overlaps(one, other) == overlaps(other, one)
    if overlaps(one, other):
        assert matches(one, common(one, other))
        assert matches(other, common(one, other))


def common(one: str, other: str) -> str:
    tokens, others = one.split("."), other.split(".")
    longer, shorter = sorted([tokens, others], key=len, reverse=True)
    merged = []
    for index, token in enumerate(longer):
        facing = shorter[index] if index < len(shorter) and shorter[index] != ">" else "*"
        merged.append(facing if token in {"*", ">"} else token)
    return ".".join("x" if token in {"*", ">"} else token for token in merged)


def test_a_tree_asks_once_for_what_it_remembers() -> None:
    asked = []
    tree: SubjectTree[int] = SubjectTree(lambda value, subject: asked.append(subject) or value > 1)
    tree.add("a.*", 1)
    tree.add("a.b", 2)
    assert tree.match("a.b") == tree.match("a.b") == [2]
    assert asked == ["a.b", "a.b"]
    tree.forget()
    assert tree.match("a.b") == [2]
    assert len(asked) == 4
