import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.socks.messages import Destination, Refusal, encode, read_destination, read_refusal
from apps.socks.protocol import Reply


def test_a_destination_comes_back():
    destination = Destination("example.com", 443)
    assert read_destination(encode(destination)) == destination


def test_a_refusal_comes_back():
    refusal = Refusal(Reply.REFUSED, "nobody listens")
    assert read_refusal(encode(refusal)) == refusal


def test_an_exit_cannot_refuse_with_success():
    assert read_refusal(encode(Refusal(Reply.SUCCEEDED, ""))).code is Reply.GENERAL


@pytest.mark.parametrize("value", [{"host": "", "port": 1}, {"host": "a", "port": 65536}, [], 7])
def test_what_is_no_destination_is_none(value: object):
    assert read_destination(msgspec.msgpack.encode(value)) is None


@given(st.binary(max_size=200))
def test_garbage_is_read_without_an_error(data: bytes):
    destination = read_destination(data)
    assert destination is None or isinstance(destination, Destination)
    assert isinstance(read_refusal(data).code, Reply)


@pytest.mark.parametrize("start", [b"", b"\x81\xa1x"])
def test_depth_is_no_weapon(start: bytes):
    assert read_destination(start + b"\x91" * 4000) is None
    assert read_refusal(start + b"\x91" * 4000).code is Reply.GENERAL
