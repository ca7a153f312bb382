import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.socks.messages import (
    Associated,
    Association,
    Destination,
    Greeting,
    Refusal,
    encode,
    read_associated,
    read_greeting,
    read_refusal,
)
from apps.socks.protocol import Reply


@pytest.mark.parametrize(
    "greeting", [Destination("example.com", 443), Association(7, 49152), Association(0, 1)]
)
def test_a_greeting_comes_back(greeting: Greeting):
    assert read_greeting(encode(greeting)) == greeting


def test_an_association_is_answered_with_the_port_of_the_exit():
    assert read_associated(encode(Associated(3))) == Associated(3)


def test_a_refusal_comes_back():
    refusal = Refusal(Reply.REFUSED, "nobody listens")
    assert read_refusal(encode(refusal)) == refusal


def test_an_exit_cannot_refuse_with_success():
    assert read_refusal(encode(Refusal(Reply.SUCCEEDED, ""))).code is Reply.GENERAL


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "tcp", "host": "", "port": 1},
        {"kind": "tcp", "host": "a" * 256, "port": 1},
        {"kind": "tcp", "host": "a", "port": 65536},
        {"kind": "udp", "number": -1, "port": 1},
        {"kind": "udp", "number": 2**32, "port": 1},
        {"kind": "udp", "number": 1, "port": 0},
        {"kind": "sctp", "host": "a", "port": 1},
        {"host": "a", "port": 1},
        [],
        7,
    ],
)
def test_what_is_no_greeting_is_none(value: object):
    assert read_greeting(msgspec.msgpack.encode(value)) is None


@pytest.mark.parametrize("value", [{}, {"port": 0}, {"port": 65536}, {"port": "3"}, None])
def test_what_is_no_answer_to_an_association_is_none(value: object):
    assert read_associated(msgspec.msgpack.encode(value)) is None


@given(st.binary(max_size=200))
def test_garbage_is_read_without_an_error(data: bytes):
    greeting = read_greeting(data)
    assert greeting is None or isinstance(greeting, Greeting)
    assert isinstance(read_refusal(data).code, Reply)
    answer = read_associated(data)
    assert answer is None or 1 <= answer.port <= 65535


@pytest.mark.parametrize("start", [b"", b"\x81\xa1x"])
def test_depth_is_no_weapon(start: bytes):
    assert read_greeting(start + b"\x91" * 4000) is None
    assert read_associated(start + b"\x91" * 4000) is None
    assert read_refusal(start + b"\x91" * 4000).code is Reply.GENERAL
