"""Keys in their text forms, with pyzmq's Z85 as the oracle."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from bus import identity
from bus.identity import Address, KeyPair

raw_keys = st.binary(min_size=32, max_size=32)
nearly_keys = st.text(z85.Z85CHARS.decode(), min_size=39, max_size=41)


@given(raw_keys)
def test_z85_is_the_same_as_the_reference(raw: bytes) -> None:
    text = identity.from_bytes(raw)
    assert text == z85.encode(raw).decode()
    assert identity.to_bytes(text) == raw == z85.decode(text)
    assert identity.is_key(text)


@given(raw_keys)
def test_hex_and_back(raw: bytes) -> None:
    key = identity.from_bytes(raw)
    assert identity.to_hex(key) == raw.hex()
    assert identity.from_hex(raw.hex()) == key
    assert identity.short(key) == raw.hex()[:8]


@given(st.text(max_size=45) | nearly_keys | raw_keys.map(identity.from_bytes))
def test_whether_a_text_is_a_key_is_always_answered(text: str) -> None:
    if identity.is_key(text):
        assert len(identity.to_bytes(text)) == 32
    else:
        with pytest.raises(ValueError, match="not a key"):
            identity.to_bytes(text)


@pytest.mark.parametrize(
    "text", ["", "a" * 39, "a" * 41, "~" * 40, "ä" * 40, " " * 40, "#" * 40, "a" * 39 + "\n"]
)
def test_what_is_no_key_is_refused_with_its_text(text: str) -> None:
    assert not identity.is_key(text)
    with pytest.raises(ValueError, match="not a key in Z85 form"):
        identity.to_bytes(text)


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32])
def test_what_is_no_key_in_hex_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        identity.from_hex(text)


def test_a_fingerprint_is_the_hash_of_the_raw_key_in_groups() -> None:
    key = identity.from_bytes(bytes(32))
    # head -c 32 /dev/zero | openssl dgst -sha256 -binary | head -c 20 | base32 | tr A-Z a-z
    assert identity.fingerprint(key) == "mzuh-vlpy-mk6x-o3ep-ygfy-5h4o-eaej-ofef"


@given(raw_keys, raw_keys)
def test_fingerprints_of_two_keys_differ_and_fit_the_wire(one: bytes, other: bytes) -> None:
    prints = [identity.fingerprint(identity.from_bytes(raw)) for raw in (one, other)]
    assert (prints[0] == prints[1]) is (one == other)
    for text in prints:
        assert re.fullmatch(r"(?:[a-z2-7]{4}-){7}[a-z2-7]{4}", text)


def test_a_secret_is_not_shown() -> None:
    pair = KeyPair("public-half", "secret-half")
    assert "secret-half" not in repr(pair)
    assert "secret-half" not in str(pair)
    assert "public-half" in repr(pair)
    assert "tcp://h:1" in repr(Address("tcp://h:1", "k"))
