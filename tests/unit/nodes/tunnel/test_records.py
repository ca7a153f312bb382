"""Records of packets: golden vectors, garbage, packets joined and taken apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.tunnel import records
from nodes.tunnel.records import EVERYTHING, Takes
from nodes.tunnel.vnet import UNFINISHED, Shape
from nodes.wire import WireError
from tests.support.ip_packets import udp4

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "vectors" / "mesh.json").read_text()
)["packets"]


def taken(record: bytes) -> list[tuple[Shape, bytes]]:
    return [(shape, bytes(packet)) for shape, packet in records.packets(memoryview(record))]


def joined(*packets: tuple[bool, bytes]) -> bytes:
    return records.JOINED + b"".join(
        records.entry(packet, unfinished=unfinished) + packet for unfinished, packet in packets
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_records_are_as_the_specification_prints_them(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    if vector["name"] == "tunnel":
        assert records.parse_tunnel(memoryview(raw)) == (Takes(vector["takes"]), vector["mtu"])
        assert records.tunnel(Takes(vector["takes"]), vector["mtu"]) == raw
        return
    packets = [
        (Shape(item["shape"], item["size"]), bytes.fromhex(item["packet"]))
        for item in vector["packets"]
    ]
    assert taken(raw) == packets
    if vector["name"] == "packet":
        assert records.packet(*packets[0]) == raw
    else:
        assert joined(*((bool(shape.kind), packet) for shape, packet in packets)) == raw


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=20, max_size=80)), min_size=1))
def test_what_was_joined_comes_apart_again(packets: list[tuple[bool, bytes]]) -> None:
    expected = [
        (Shape(UNFINISHED if unfinished else 0, 0), packet) for unfinished, packet in packets
    ]
    assert taken(joined(*packets)) == expected


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x08\0\0\0",
        b"\x08\0\0\0" + bytes(19),
        b"\x09\0\0\0" + b"\0\x13" + bytes(20),
        b"\x09\0\0\0" + b"\0\x17" + bytes(20),
        joined((False, udp4(b"x"))) + b"\0",
        joined((False, udp4(b"x"))) + b"\0\0",
    ],
)
def test_what_is_cut_short_is_an_error(record: bytes) -> None:
    with pytest.raises(WireError):
        taken(record)


@given(st.binary(max_size=200), st.sampled_from([8, 9]))
def test_any_bytes_are_packets_or_an_error(rest: bytes, kind: int) -> None:
    record = bytes([kind]) + rest
    try:
        packets = taken(record)
    except WireError:
        return
    assert all(len(packet) >= 20 for _, packet in packets)
    assert sum(len(packet) for _, packet in packets) < len(record)


def test_bits_of_later_versions_are_left_out() -> None:
    assert records.parse_tunnel(memoryview(b"\x0a\xff\x05\x8c")) == (EVERYTHING, 1420)
    with pytest.raises(WireError):
        records.parse_tunnel(memoryview(b"\x0a\xff\x05"))
