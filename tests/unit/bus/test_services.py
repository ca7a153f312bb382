"""What is told of services: read from anybody, so believed only as far as it goes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import services
from bus.services import Endpoint, Service

KEY = "k" * 40
CLOCK = Service("clock", "1.2", "the time", "id", [Endpoint("app.clock", 2, 1, 0.5)], 2, 1, 0.5)


def test_what_is_told_is_read_with_the_key_of_who_told_it() -> None:
    told = msgspec.structs.replace(CLOCK, key="o" * 40)  # a claim
    assert services.unpack(services.pack([told]), KEY) == [msgspec.structs.replace(CLOCK, key=KEY)]


@pytest.mark.parametrize(
    "told",
    [
        {}, {"services": 7}, {"services": [{"name": 7}]}, {"services": [{"name": "n" * 65}]},
        {"services": [{"name": "x", "endpoints": [{"subject": ""}]}]},
        {"services": [{"name": "x"}] * 1025},
    ],
)  # fmt: skip
def test_nonsense_tells_of_no_service(told: object) -> None:
    assert services.unpack(msgspec.msgpack.encode(told), KEY) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_not(body: bytes) -> None:
    assert isinstance(services.unpack(body, KEY), list)


def test_unknown_keys_are_ignored() -> None:
    told = {"services": [{"name": "x", "colour": "blue"}], "more": 1}
    assert services.unpack(msgspec.msgpack.encode(told), KEY) == [Service("x", key=KEY)]
