"""What protects a data connection: only its own heads, in their own order, open."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import wire
from nodes.links import heads
from nodes.links.heads import FIRST, PREFIX, LineKeys, Opener, Sealer
from nodes.wire import FrameType, WireError

A, B = "a" * 40, "b" * 40
SECRETS = bytes(range(32)), bytes(range(32, 64))
VECTOR = json.loads((Path(__file__).parents[3] / "vectors" / "mesh.json").read_text())["data_line"]

a_head = st.builds(
    wire.head, st.sampled_from(FrameType), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
)


def ends(number: int = 0) -> tuple[Sealer, Opener]:
    keys = LineKeys(A, B, SECRETS)
    return Sealer(keys.from_dialler(number)), Opener(keys.from_dialler(number))


def test_the_first_message_is_as_the_specification_prints_it() -> None:
    secrets = (bytes.fromhex(VECTOR["dialler_secret"]), bytes.fromhex(VECTOR["listener_secret"]))
    keys = LineKeys(VECTOR["dialler"], VECTOR["listener"], secrets)
    number = VECTOR["number"]
    sealer = Sealer(keys.from_dialler(number))
    assert heads.first_message(keys, number, sealer).hex() == VECTOR["first"]
    second = sealer.seal(bytes.fromhex(VECTOR["head"]), VECTOR["size"])
    assert second.hex() == VECTOR["second"]
    answer = Sealer(keys.from_listener(number)).seal(wire.head(FrameType.ALIVE), 0)
    assert answer.hex() == VECTOR["answer"]


@given(st.lists(st.tuples(a_head, st.integers(0, wire.MAX_PAYLOAD)), max_size=8))
def test_heads_open_in_the_order_of_sealing(sent: list[tuple[bytes, int]]) -> None:
    sealer, opener = ends()
    for head, size in sent:
        prefix = sealer.seal(head, size)
        assert len(prefix) == PREFIX
        assert opener.open(prefix) == (head, size)


@given(a_head, st.integers(0, wire.MAX_PAYLOAD), st.integers(0, PREFIX * 8 - 1))
def test_a_head_with_any_bit_changed_does_not_open(head: bytes, size: int, bit: int) -> None:
    sealer, opener = ends()
    prefix = bytearray(sealer.seal(head, size))
    prefix[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError):
        opener.open(memoryview(prefix))


def test_a_head_does_not_open_twice_nor_before_its_time() -> None:
    sealer, opener = ends()
    first, second = (sealer.seal(wire.head(FrameType.DATA, 7, n, lane=1), 0) for n in (1, 2))
    with pytest.raises(WireError):
        ends()[1].open(second)
    opener.open(first)
    with pytest.raises(WireError):
        opener.open(first)


def test_every_connection_and_direction_has_keys_of_its_own() -> None:
    keys = LineKeys(A, B, SECRETS)
    made = [
        keys.from_dialler(0),
        keys.from_dialler(1),
        keys.from_listener(0),
        LineKeys(B, A, SECRETS).from_dialler(0),
        LineKeys(A, B, (SECRETS[1], SECRETS[0])).from_dialler(0),
    ]
    sealed = {bytes(aead.encrypt(bytes(12), bytes(16), None)) for aead in made}
    assert len(sealed) == len(made)


def test_a_first_message_proves_which_connection_it_is() -> None:
    keys = LineKeys(A, B, SECRETS)
    first = heads.first_message(keys, 2, Sealer(keys.from_dialler(2)))
    assert len(first) == FIRST
    link, number, proof = heads.parse_first(first)
    assert (link, number) == (keys.id, 2)
    heads.check_proof(Opener(keys.from_dialler(2)), proof)
    for wrong in (keys.from_dialler(1), keys.from_listener(2)):
        with pytest.raises(WireError):
            heads.check_proof(Opener(wrong), proof)


def test_a_frame_that_is_no_alive_proves_nothing() -> None:
    for head, size in ((wire.head(FrameType.DATA, 1, 1), 0), (wire.head(FrameType.ALIVE), 5)):
        sealer, opener = ends()
        with pytest.raises(WireError):
            heads.check_proof(opener, sealer.seal(head, size))


@given(st.binary(min_size=FIRST, max_size=FIRST), st.binary(min_size=PREFIX, max_size=PREFIX))
def test_garbage_is_a_wire_error_and_nothing_else(first: bytes, prefix: bytes) -> None:
    with contextlib.suppress(WireError):
        heads.parse_first(first)
    with pytest.raises(WireError):
        ends()[1].open(prefix)
