"""The codec against garbage, bombs and limits."""

import contextlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus import wire
from bus.errors import LocalProtocolError, RemoteProtocolError

from_client = wire.Decoder(wire.FROM_CLIENT).decode
from_broker = wire.Decoder(wire.FROM_BROKER).decode
PREFIXES = [b"SB\x01" + bytes([c.code]) for c in (*wire.FROM_CLIENT, *wire.FROM_BROKER)]
KEY = "k" * 40

ids = st.integers(0, 2**63 - 1)
subjects = st.text(min_size=1, max_size=255)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
KNOWN = ["s", "n", "id", "sid", "to", "dl", "r", "t", "err", "msg", "num", "from", "caps", "name"]


def decode_any(head: bytes) -> None:
    for decode in (from_client, from_broker):
        with contextlib.suppress(RemoteProtocolError):
            assert isinstance(decode(head), wire.Command)


@given(
    st.builds(wire.Publish, s=subjects, n=st.integers(1, 1024), id=st.none() | ids)
    | st.builds(wire.Request, id=ids, s=subjects, dl=st.integers(0, 86_400_000), to=st.none())
    | st.builds(wire.Subscribe, id=ids, sid=ids, s=subjects, policy=st.text(max_size=16))
    | st.builds(
        wire.Hello, name=st.text(max_size=64), caps=st.lists(st.text(max_size=8), max_size=9)
    )
)
@settings(deadline=None)
def test_what_a_client_says_comes_out_as_it_went_in(command: wire.Command) -> None:
    assert from_client(wire.encode(command)) == command


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_random_bytes_raise_nothing_but_the_protocol_error(head: bytes) -> None:
    decode_any(head)


@given(st.sampled_from(PREFIXES), st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_random_bytes_after_a_good_prefix_raise_nothing_but_the_protocol_error(
    prefix: bytes, rest: bytes
) -> None:
    decode_any(prefix + rest)


@given(st.sampled_from(PREFIXES), st.dictionaries(st.sampled_from(KNOWN), values, max_size=8))
@settings(deadline=None, max_examples=300)
def test_known_keys_with_values_of_any_type_raise_nothing_but_the_protocol_error(
    prefix: bytes, fields: dict[str, object]
) -> None:
    decode_any(prefix + msgpack.packb(fields))


@given(st.sampled_from(PREFIXES), st.dictionaries(st.text(max_size=9), values, max_size=8), ids)
@settings(deadline=None)
def test_unknown_keys_are_ignored(prefix: bytes, extra: dict[str, object], moment: int) -> None:
    fields = {**{k: v for k, v in extra.items() if k != "t"}, "t": moment}
    assert from_client(PREFIXES[1] + msgpack.packb(fields)) == wire.Ping(moment)


@pytest.mark.parametrize("opener", [b"\x91", b"\x81\xa0", b"\xdc\x00\x01"])
def test_a_depth_bomb_in_an_unknown_key_is_an_error(opener: bytes) -> None:
    depth = 4000 // len(opener)
    with pytest.raises(RemoteProtocolError) as caught:
        from_client(PREFIXES[1] + b"\x81\xa1x" + opener * depth + b"\xc0")
    assert caught.value.err == "bad_frame"


@pytest.mark.parametrize(
    "claim", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
def test_a_length_that_is_not_there_is_an_error_and_allocates_nothing(claim: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        from_client(PREFIXES[0] + b"\x81\xa4caps" + claim)
    with pytest.raises(RemoteProtocolError):
        wire.split(claim, 3)


def test_every_truncation_of_a_head_is_an_error() -> None:
    head = wire.encode(wire.Request(7, "app.clock.now", 5000, KEY))
    for length in range(len(head)):
        with pytest.raises(RemoteProtocolError):
            from_client(head[:length])


def test_a_head_over_4100_bytes_is_too_large_before_it_is_read() -> None:
    fill = wire.MAX_HEAD - 4 - 6
    exact = PREFIXES[1] + b"\x81\xa1x\xc5" + fill.to_bytes(2) + bytes(fill)
    assert len(exact) == wire.MAX_HEAD
    assert from_client(exact) == wire.Ping()
    with pytest.raises(RemoteProtocolError) as caught:
        from_client(exact + b"\x00")
    assert (caught.value.code, caught.value.err) == (413, "too_large")


def test_our_own_head_over_4100_bytes_is_our_own_error() -> None:
    with pytest.raises(LocalProtocolError, match="at most 4100"):
        wire.encode(wire.Reply(1, "x", "\U0001f600" * 1024))


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_told_apart_from_garbage(version: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        from_client(b"SB" + bytes([version, 2, 0x80]))
    assert (caught.value.code, caught.value.err) == (426, "version")
    assert str(version) in str(caught.value)


def test_a_command_of_the_other_direction_is_unknown() -> None:
    with pytest.raises(RemoteProtocolError, match="unknown command: 0x84"):
        from_client(wire.encode(wire.Ok(1)))
    with pytest.raises(RemoteProtocolError, match="unknown command: 0x10"):
        from_broker(wire.encode(wire.Publish("a")))


@given(st.lists(st.binary(max_size=300), max_size=40))
@settings(deadline=None)
def test_a_batch_comes_out_as_it_went_in(bodies: list[bytes]) -> None:
    body = wire.join(bodies)
    assert wire.split(body, len(bodies)) == bodies
    for wrong in (len(bodies) + 1, max(0, len(bodies) - 1) or 7):
        if wrong != len(bodies):
            with pytest.raises(RemoteProtocolError):
                wire.split(body, wrong)


batches = st.lists(st.binary(max_size=20), max_size=4).map(wire.join)


@given(batches | st.binary(max_size=300), st.integers(1, 4) | st.integers(1, 1024))
@settings(deadline=None)
def test_a_batch_of_garbage_raises_nothing_but_the_protocol_error(body: bytes, n: int) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert len(wire.split(body, n)) == n


@given(st.text(st.characters(), max_size=400), st.integers(0, 300))
@settings(deadline=None)
def test_clipped_text_fits_and_is_a_beginning(text: str, limit: int) -> None:
    clipped = wire.clip(text, limit)
    assert len(clipped.encode(errors="replace")) <= limit
    assert len(text.encode(errors="replace")) > limit or clipped == text
