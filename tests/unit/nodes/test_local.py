"""The node-app codec: golden vectors, cuts of the byte stream, garbage."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import local
from nodes.local import Deframer, LocalProtocolError

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "mesh.json").read_text()
)["local"]
EVERY = pytest.mark.parametrize(
    "vector", VECTORS, ids=[f"{vector['direction']}-{vector['name']}" for vector in VECTORS]
)


def plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: bytes.fromhex(value["hex"]) if isinstance(value, dict) and "hex" in value else value
        for name, value in fields.items()
    }


@EVERY
def test_messages_are_as_the_specification_prints_them(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    decode = local.decode_from_app if vector["direction"] == "app" else local.decode_from_node
    message = decode(raw[4:])
    assert type(message).__struct_config__.tag == vector["name"]
    assert msgspec.to_builtins(message, builtin_types=(bytes,)) == {
        "type": vector["name"],
        **plain(vector["fields"]),
    }
    assert local.encode(message) == raw


@EVERY
def test_an_independent_codec_reads_and_writes_them(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    fields = msgpack.unpackb(raw[4:])
    assert fields == {"type": vector["name"], **plain(vector["fields"])}
    assert struct.unpack(">I", raw[:4]) == (len(raw) - 4,)
    decode = local.decode_from_app if vector["direction"] == "app" else local.decode_from_node
    assert decode(msgpack.packb(fields)) == decode(raw[4:])


def test_every_message_has_a_vector() -> None:
    named = {(vector["direction"], vector["name"]) for vector in VECTORS}
    app = {("app", kind.__struct_config__.tag) for kind in local.FromApp.__args__}
    node = {("node", kind.__struct_config__.tag) for kind in local.FromNode.__args__}
    assert named == app | node


def test_optional_fields_may_be_left_out() -> None:
    body = msgpack.packb({"type": "open", "id": 1, "target": "beta", "port": 80})
    assert local.decode_from_app(body) == local.Open(1, "beta", 80, b"", 10.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "listen", "id": 1, "port": 0},
        {"type": "listen", "id": 1, "port": 65536},
        {"type": "listen", "id": -1, "port": 1},
        {"type": "listen", "port": 1},
        {"type": "refuse", "stream": 1, "code": 256},
        {"type": "open", "id": 1, "target": "b", "port": 1, "greeting": b"x" * 4097},
        {"type": "open", "id": 1, "target": "b", "port": 1, "timeout": -1},
        {"type": "attach", "stream": 1, "early": b"x" * 65537},
        {"type": "welcome", "version": 1, "key": "", "name": ""},
        {"type": "nonsense"},
        {},
    ],
)
def test_what_an_app_may_not_say_is_a_named_error(fields: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError, match="malformed"):
        local.decode_from_app(msgpack.packb(fields))


@given(st.binary(max_size=300))
def test_garbage_is_a_named_error(data: bytes) -> None:
    for decode in (local.decode_from_app, local.decode_from_node):
        with contextlib.suppress(LocalProtocolError):
            assert decode(data) is not None


def test_deeply_nested_garbage_is_a_named_error() -> None:
    with pytest.raises(LocalProtocolError):
        local.decode_from_app(b"\x82\xa4type\xa5reset\xa1x" + b"\x91" * 90_000)


@given(st.lists(st.integers(1, 60), max_size=40))
def test_messages_survive_any_cut_of_the_stream(cuts: list[int]) -> None:
    stream = b"".join(bytes.fromhex(vector["hex"]) for vector in VECTORS)
    deframer, bodies, start = Deframer(), [], 0
    for size in [*cuts, len(stream)]:
        bodies += deframer.feed(stream[start : start + size])
        start += size
    assert bodies == [bytes.fromhex(vector["hex"])[4:] for vector in VECTORS]
    assert deframer.empty


def test_an_oversized_message_is_refused_by_its_length_alone() -> None:
    with pytest.raises(LocalProtocolError, match="98305 bytes"):
        Deframer().feed(struct.pack(">I", local.MAX_MESSAGE + 1))
