"""Join strings: one word that carries everything, and errors that name the part."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import join
from bus.enrolment import TOKEN_BYTES
from bus.identity import Address, from_bytes, to_hex
from bus.join import Join, JoinError

KEY = from_bytes(bytes(range(32)))
HEX = to_hex(KEY)
TOKEN = base64.urlsafe_b64encode(bytes(range(TOKEN_BYTES))).decode().rstrip("=")
GOOD = f"viscript-join:bus.example:7600/{HEX}/{TOKEN}"


@pytest.mark.parametrize(
    "endpoint", ["tcp://10.0.0.1:7600", "tcp://bus.example:1", "tcp://[fe80::1]:65535"]
)
def test_what_is_packed_is_parsed(endpoint: str) -> None:
    text = join.pack(Address(endpoint, KEY), TOKEN)
    assert join.parse(text) == Join(Address(endpoint, KEY), TOKEN)
    assert str(join.parse(text)) == text
    assert len(text.split()) == 1


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_every_key_and_token_fits(key: bytes, token: bytes) -> None:
    text = base64.urlsafe_b64encode(token).decode().rstrip("=")
    packed = join.pack(Address("tcp://a:1", from_bytes(key)), text)
    assert join.parse(packed) == Join(Address("tcp://a:1", from_bytes(key)), text)


def test_white_space_around_it_is_no_part_of_it() -> None:
    assert join.parse(f"  {GOOD}\r\n") == join.parse(GOOD)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "does not begin with 'viscript-join:'"),
        (GOOD.removeprefix("viscript-"), "does not begin with"),
        (GOOD.replace("viscript", "VISCRIPT"), "does not begin with"),
        (f"viscript-join:bus.example:7600/{HEX}", r"2 parts.*copied whole"),
        (GOOD + "/x", r"4 parts"),
        (
            GOOD.replace("bus.example:7600", "bus.example"),
            "endpoint: 'bus.example' is not HOST:PORT",
        ),
        (GOOD.replace("bus.example", ""), "endpoint: ':7600' is not HOST:PORT"),
        (GOOD.replace("bus.example", "-x"), "endpoint"),
        (GOOD.replace("bus.example", "a b"), "endpoint"),
        (GOOD.replace("bus.example", "a\x1b[2J"), r"endpoint: 'a\\x1b"),
        (GOOD.replace("bus.example", "fe80::1"), "endpoint"),
        (GOOD.replace("7600", "0"), "endpoint: port '0' is not from 1 to 65535"),
        (GOOD.replace("7600", "65536"), "port"),
        (GOOD.replace("7600", "0x10"), "port"),
        (GOOD.replace("7600", "7600\u0661"), "port"),
        (GOOD.replace("bus.example", "0.0.0.0"), "no machine can reach 0.0.0.0"),
        (GOOD.replace(HEX, HEX[:-1]), "broker key: 63 characters, not 64"),
        (GOOD.replace(HEX, HEX.upper()), "broker key"),
        (GOOD.replace(HEX, "g" * 64), "broker key"),
        (GOOD[:-1], r"token: 42 characters.*copied whole"),
        (GOOD + "=", "token: 44"),
        (GOOD + " " * 1000 + "x", "longer than 512"),
    ],
)
def test_the_wrong_part_is_named(text: str, problem: str) -> None:
    with pytest.raises(JoinError, match=problem):
        join.parse(text)


@given(st.text(max_size=100) | st.text(max_size=60).map("viscript-join:".__add__))
def test_garbage_raises_nothing_but_a_join_error(text: str) -> None:
    with pytest.raises(JoinError):
        join.parse(text)


@given(st.integers(0, len(GOOD) - 1), st.characters())
def test_no_error_shows_the_token(at: int, put: str) -> None:
    text = GOOD[:at] + put + GOOD[at + 1 :]
    assert TOKEN[:21] not in problem_of(text)
    assert TOKEN[-21:] not in problem_of(text)


def problem_of(text: str) -> str:
    """What is wrong with it; nothing, if it is a join string."""
    try:
        join.parse(text)
    except JoinError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "text", [GOOD, GOOD[:-1], GOOD.upper(), f"x={GOOD}", GOOD.removeprefix("viscript-join:")]
)
def test_what_is_meant_as_a_join_string_is_known_for_one(text: str) -> None:
    assert join.looks_like_one(text)


@pytest.mark.parametrize("text", ["-", "home", "tcp://bus.example:7600", HEX, f"/run/{TOKEN}"])
def test_names_endpoints_keys_and_files_are_no_join_strings(text: str) -> None:
    assert not join.looks_like_one(text)


def test_the_token_is_not_in_what_is_logged_of_it() -> None:
    assert TOKEN not in repr(join.parse(GOOD))


@pytest.mark.parametrize(
    "endpoint", ["ipc:///tmp/x", "tcp://0.0.0.0:7600", "tcp://*:7600", "tcp://a:0", "a"]
)
def test_an_endpoint_that_nobody_else_can_dial_is_refused(endpoint: str) -> None:
    with pytest.raises(JoinError, match="endpoint"):
        join.pack(Address(endpoint, KEY), TOKEN)
