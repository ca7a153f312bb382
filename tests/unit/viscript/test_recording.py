"""Recordings: a stream of MessagePack maps that any library reads and nobody can poison."""

import io
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viscript.errors import Failed
from viscript.recording import MAX_BODY, Header, Reader, Recorded, Writer

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
MESSAGES = [
    Recorded(1000.5, "app.a", KEY, b"one"),
    Recorded(1001.0, "app.b.c", KEY, b""),
    Recorded(1001.0, "app.a", KEY, bytes(range(256)) * 100),
]
HEAD = {"format": "viscript recording", "version": 1}
FIRST = {"t": 1.0, "s": "app.a", "from": KEY, "body": b""}


def recorded(messages=MESSAGES) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, Header("app.>", KEY, 1000.0))
    for message in messages:
        writer.add(message)
    assert (writer.messages, writer.bytes) == (len(messages), len(file.getvalue()))
    return file.getvalue()


def reader(raw: bytes) -> Reader:
    return Reader(io.BytesIO(raw), "x.rec")


def packed(*values) -> bytes:
    return b"".join(msgpack.packb(value) for value in values)


def test_what_was_written_is_read():
    found = reader(recorded())
    assert list(found) == MESSAGES
    assert found.header == Header("app.>", KEY, 1000.0)
    assert not found.truncated


def test_any_messagepack_library_reads_it():
    head, first, *_ = msgpack.Unpacker(io.BytesIO(recorded()))
    assert head == {**HEAD, "pattern": "app.>", "broker": KEY, "began": 1000.0}
    assert first == {"t": 1000.5, "s": "app.a", "from": KEY, "body": b"one"}


def test_unknown_keys_are_ignored():
    raw = packed({**HEAD, "more": [1]}, {**FIRST, "headers": {"a": "b"}})
    assert list(reader(raw)) == [Recorded(1.0, "app.a", KEY, b"")]


def test_wherever_it_is_cut_all_whole_messages_before_are_read():
    raw = recorded(MESSAGES[:2])
    ends = [len(recorded(MESSAGES[:n])) for n in range(3)]
    for cut in range(ends[0], len(raw) + 1):
        found = reader(raw[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert list(found) == MESSAGES[:whole]
        assert found.truncated == (cut not in ends)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"hello", b"\x00" * 100, b"\xc1", b"\x81", b"\xdd\xff\xff\xff\xff", packed([]), packed({}),
        packed({"format": "other", "version": 1}), b"\x91" * 5000, b"\x81\xa1a" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_recording_is_named(raw):
    with pytest.raises(Failed, match=r"x\.rec: not a recording made by viscript bus record"):
        reader(raw)


def test_a_newer_recording_is_refused_with_both_versions():
    with pytest.raises(Failed, match="version 2; this viscript reads 1"):
        reader(packed({**HEAD, "version": 2}))


@pytest.mark.parametrize(
    "bad",
    [
        7, [], {}, {**FIRST, "s": "a b"}, {**FIRST, "s": 1}, {**FIRST, "body": "text"},
        {**FIRST, "from": None}, {**FIRST, "t": "now"}, {**FIRST, "t": float("nan")},
        {**FIRST, "t": float("inf")}, {**FIRST, "t": True}, {**FIRST, "t": -1}, {**FIRST, "t": 2**60},
        {1: 2}, {"x" * 2000: 1}, {"x": "y" * 2000}, {str(n): n for n in range(99)}, {"x": list(range(99))},
        {**FIRST, "more": msgpack.ExtType(5, b"x")},
    ],
)  # fmt: skip
def test_damage_after_good_messages_is_told_with_its_place(bad):
    found = iter(reader(packed(HEAD, FIRST, bad, FIRST)))
    assert next(found).subject == "app.a"
    with pytest.raises(Failed, match=r"x\.rec: damaged at byte \d+: "):
        next(found)


class Stream(io.RawIOBase):
    """Gives `first`, then `chunk` so many times."""

    def __init__(self, first: bytes, chunk: bytes, times: int) -> None:
        self._next, self._chunk, self._left = first, chunk, times

    def read(self, _size):
        raw, self._left = self._next, self._left - 1
        self._next = self._chunk if self._left >= 0 else b""
        return raw


@pytest.fixture
def peak():
    """The most bytes of memory since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_a_body_that_claims_to_be_huge_is_held_up_to_a_bound(peak):
    claim = packed(HEAD) + b"\x84\xa4body\xc6" + (2**32 - 1).to_bytes(4, "big")
    cut = reader(claim + b"the rest never came")
    assert list(cut) == []
    assert cut.truncated
    with pytest.raises(Failed, match="damaged"):
        list(Reader(Stream(claim, bytes(1 << 20), 5000), "pipe"))
    assert peak() < 6 * MAX_BODY


def test_the_largest_body_is_read():
    body = bytes(MAX_BODY)
    assert [m.body for m in reader(recorded([Recorded(1.0, "a", KEY, body)]))] == [body]


def test_a_long_recording_is_read_in_small_memory(peak):
    chunk = packed({**FIRST, "body": bytes(1 << 18)})
    assert sum(1 for _ in Reader(Stream(packed(HEAD), chunk, 800), "pipe")) == 800
    assert peak() < 16 << 20


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_after_the_head_are_read_or_refused(raw):
    found = reader(packed(HEAD) + raw)
    try:
        messages = list(found)
    except Failed:
        return
    assert all(isinstance(message.body, bytes) for message in messages)
