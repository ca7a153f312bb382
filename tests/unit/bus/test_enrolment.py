"""The door: tokens that work once and expire, a window that closes, a file that cannot be misread."""

import contextlib
import math
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import enrolment
from bus.access import AccessError
from bus.enrolment import MAX_TOKENS, Door
from bus.signals import Opening, TokenQuery

NOW = 1.7e9


def token() -> str:
    return secrets.token_urlsafe(enrolment.TOKEN_BYTES)


def query(seconds: float = 60.0, name: str = "lamp", *roles: str) -> TokenQuery:
    return TokenQuery(list(roles or ("app",)), name, seconds)


def test_a_token_is_good_once() -> None:
    text = token()
    door, stored = Door().with_token(text, query(), NOW)
    spent = door.spend(text, NOW)
    assert spent is not None
    after, found = spent
    assert (found.name, found.roles, found.expires) == ("lamp", ["app"], NOW + 60)
    assert found == stored
    assert after.spend(text, NOW) is None
    assert not after.is_open(NOW)


def test_a_token_that_expired_is_no_token() -> None:
    text = token()
    door, _ = Door().with_token(text, query(60), NOW)
    assert door.is_open(NOW + 59)
    assert door.spend(text, NOW + 59) is not None
    assert door.spend(text, NOW + 60) is None
    assert not door.is_open(NOW + 60)


@given(st.text(max_size=60) | st.just("\ud800"))
@settings(deadline=None)
def test_what_is_not_a_token_opens_nothing(text: str) -> None:
    door, _ = Door().with_token(token(), query(), NOW)
    assert door.spend(text, NOW) is None


def test_one_token_leaves_the_others() -> None:
    texts = [token() for _ in range(5)]
    door = Door()
    for text in texts:
        door, _ = door.with_token(text, query(), NOW)
    spent = door.spend(texts[2], NOW)
    assert spent is not None
    assert [spent[0].spend(t, NOW) is not None for t in texts] == [True, True, False, True, True]


def test_the_file_does_not_tell_the_token() -> None:
    text = token()
    door, stored = Door().with_token(text, query(), NOW)
    written = enrolment.encode(door)
    assert text.encode() not in written
    assert stored.hash.encode() in written
    assert enrolment.decode(written) == door
    again = enrolment.decode(written).spend(text, NOW)
    assert again is not None


def test_the_hash_in_the_file_is_not_a_token() -> None:
    door, stored = Door().with_token(token(), query(), NOW)
    assert door.spend(stored.hash, NOW) is None
    assert door.spend(stored.id, NOW) is None


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (query(0), "seconds"), (query(-1), "seconds"), (query(math.nan), "seconds"),
        (query(math.inf), "seconds"), (query(31 * 86_400), "30 days"),
        (query(60, "x\x1b[2J"), "printable"), (query(60, "x" * 65), "at most 64"),
        (query(60, "x", "boss"), "unknown role 'boss'"), (TokenQuery([], "x"), "no role"),
    ],
)  # fmt: skip
def test_a_token_that_must_not_be_is_refused_with_the_reason(bad: TokenQuery, problem: str) -> None:
    with pytest.raises(AccessError, match=problem):
        Door().with_token(token(), bad, NOW)


@pytest.mark.parametrize("text", ["", "x", "x" * 42, "x" * 44, "ä" * 43, "x" * 42 + "="])
def test_a_weak_token_is_refused(text: str) -> None:
    with pytest.raises(AccessError, match="43 characters"):
        Door().with_token(text, query(), NOW)


def test_there_is_a_bound_on_tokens_and_the_expired_do_not_count() -> None:
    door = Door()
    for _ in range(MAX_TOKENS):
        door, _ = door.with_token(token(), query(60), NOW)
    with pytest.raises(AccessError, match=f"at most {MAX_TOKENS} tokens"):
        door.with_token(token(), query(), NOW)
    later, _ = door.with_token(token(), query(), NOW + 60)
    assert len(later.tokens) == 1


def test_the_window_opens_for_a_time_and_closes() -> None:
    door = Door().opened(Opening(30), NOW)
    assert [door.is_open(NOW + s) for s in (0, 29, 30)] == [True, True, False]
    assert not door.opened(Opening(0), NOW).is_open(NOW)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 86_401])
def test_a_window_without_end_is_refused(seconds: float) -> None:
    with pytest.raises(AccessError, match="seconds"):
        Door().opened(Opening(seconds), NOW)


def test_a_token_can_be_taken_back_by_its_id() -> None:
    text = token()
    door, stored = Door().with_token(text, query(), NOW)
    assert door.without(stored.id, NOW).spend(text, NOW) is None
    with pytest.raises(AccessError, match="no token 'beef'"):
        door.without("beef", NOW)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'{"tokens": 1}', b'{"token": []}', b"[" * 100_000, b"\xff\xfe",
     b'{"tokens": [{"hash": "x", "name": "a", "roles": ["app"], "expires": 1}]}',
     b'{"tokens": [{"hash": "%s", "name": "a", "roles": ["boss"], "expires": 1}]}' % (b"0" * 64),
     b'{"open_until": "soon"}'],
)  # fmt: skip
def test_a_broken_file_is_an_access_error(text: bytes) -> None:
    with pytest.raises(AccessError):
        enrolment.decode(text)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_garbage_raises_nothing_but_an_access_error(text: bytes) -> None:
    with contextlib.suppress(AccessError):
        assert isinstance(enrolment.decode(text), enrolment.Door)
