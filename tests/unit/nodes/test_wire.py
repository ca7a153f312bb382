"""The link codec: golden vectors, and bytes from strangers."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import wire
from nodes.wire import Code, FrameType, Kind, WireError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "mesh.json").read_text()
)


def by_name(entries: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("vector", entries, ids=[entry["name"] for entry in entries])


@by_name(VECTORS["frames"])
def test_frames_are_as_the_specification_prints_them(vector: dict[str, Any]) -> None:
    kind, payload = FrameType[vector["type"]], bytes.fromhex(vector["payload"])
    lane = vector["lane"]
    encoded = wire.frame(kind, vector["label"], vector["counter"], payload, lane=lane)
    assert encoded.hex() == vector["hex"]
    assert encoded[:16] == struct.pack(
        ">BBBBIQ", 0x20 + kind, lane, 0, 0, vector["label"], vector["counter"]
    )
    parsed = wire.parse_frame(memoryview(encoded))
    assert parsed == (kind, lane, 0, 0, vector["label"], vector["counter"])


@by_name(VECTORS["records"])
def test_records_are_as_the_specification_prints_them(vector: dict[str, Any]) -> None:
    raw = memoryview(bytes.fromhex(vector["hex"]))
    kind = Kind[vector["kind"]]
    assert wire.parse_record(raw) == (kind, vector["code"], vector["port"], vector["stream"])
    rest = raw[wire.RECORD.size :]
    if vector["credit"] is not None:
        assert wire.parse_amount(rest) == vector["credit"]
        rest = rest[4:]
    assert rest.hex() == vector["data"]


def test_the_builders_make_the_records_of_the_specification() -> None:
    expected = {vector["name"]: vector["hex"] for vector in VECTORS["records"]}
    made = {
        "open": wire.open_(3, 1080, 1 << 20, b"hi", b"GET"),
        "opened": wire.opened(3, 65536, b"yes"),
        "refuse": wire.record(Kind.REFUSE, 3, b"no", code=5),
        "data": wire.record(Kind.DATA, 3, b"hello"),
        "credit": wire.credit(3, 262144),
        "fin": wire.record(Kind.FIN, 3),
        "reset": wire.record(Kind.RESET, 3, code=Code.TARGET_RESET),
    }
    assert {name: data.hex() for name, data in made.items()} == expected


@by_name(VECTORS["bad_frames"])
def test_what_is_no_frame_is_a_named_error(vector: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        wire.parse_frame(memoryview(bytes.fromhex(vector["hex"])))


def test_a_frame_may_be_no_larger_than_its_maximum() -> None:
    wire.parse_frame(memoryview(wire.frame(FrameType.DATA, 1, 1, bytes(wire.MAX_FRAME - 16))))
    with pytest.raises(WireError, match="65617 bytes"):
        wire.parse_frame(memoryview(wire.frame(FrameType.DATA, 1, 1, bytes(wire.MAX_FRAME - 15))))


@given(
    st.sampled_from(FrameType),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.tuples(*[st.integers(0, 255)] * 3),
)
def test_a_head_says_back_what_was_put_in(
    kind: FrameType, label: int, counter: int, rest: tuple[int, int, int]
) -> None:
    lane, epoch, ttl = rest
    packed = wire.head(kind, label, counter, lane=lane, epoch=epoch, ttl=ttl)
    assert len(packed) == 16
    assert wire.parse_head(packed) == (kind, lane, epoch, ttl, label, counter)


def test_a_close_says_why_and_who_says_so() -> None:
    payload = memoryview(wire.close(7, Code.STOPPING, b"k" * 32))[16:]
    assert wire.parse_close(payload) == (Code.STOPPING, b"k" * 32)
    assert wire.parse_close(payload[:9]) == (Code.STOPPING, bytes(32))
    assert wire.parse_close(payload[:0]) == (Code.LINK_LOST, bytes(32))


def test_hello_is_read_by_an_independent_decoder_and_back() -> None:
    payload = wire.hello("k" * 40, "alpha")[16:]
    assert msgpack.unpackb(payload) == {"version": 2, "key": "k" * 40, "name": "alpha"}
    other = msgpack.packb({"version": 2, "key": "k" * 40, "name": "b", "later": [1, 2]})
    assert wire.parse_hello(memoryview(other)).name == "b"


def test_a_hello_of_another_version_is_refused() -> None:
    with pytest.raises(WireError, match="version 3"):
        wire.parse_hello(memoryview(msgpack.packb({"version": 3, "key": "", "name": ""})))


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_but_a_wire_error(data: bytes) -> None:
    view = memoryview(data)
    for parse in (wire.parse_frame, wire.parse_hello, wire.parse_record, wire.parse_amount):
        with contextlib.suppress(WireError):
            parse(view)
    assert isinstance(wire.parse_close(view)[0], Code)


def test_deeply_nested_garbage_is_a_wire_error() -> None:
    with pytest.raises(WireError):
        wire.parse_hello(memoryview(b"\x81\xa4name" + b"\x91" * 4000))


def test_every_code_has_a_text_and_unknown_codes_are_resets() -> None:
    assert all(code.text for code in Code)
    assert Code.of(200) is Code.RESET
