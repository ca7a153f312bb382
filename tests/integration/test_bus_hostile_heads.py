"""Heads that are bombs and messages of very many frames, against the real broker: told, cut, and bounded."""

import contextlib
from typing import Any

import msgpack

from tests.support.attack import MIB, attack, mallory, told_and_cut, undisturbed
from tests.support.raw import OK, PUBLISH, REQUEST, SUBSCRIBE

CREDIT = 0x18
MAX_WINDOW = 1 << 20


def head(fields: bytes, code: int = SUBSCRIBE) -> bytes:
    return b"SB\x01" + bytes([code]) + fields


def packed(value: object, code: int = SUBSCRIBE) -> bytes:
    return head(msgpack.packb(value), code)


GOOD: dict[str, Any] = {"id": 1, "sid": 1, "s": "topic.x"}
BOMBS = {
    "arrays in arrays": head(b"\x81\xa1s" + b"\x91" * 4000),
    "maps in maps": head(b"\x81\xa1s" * 1300),
    "an unknown key of arrays in arrays": head(
        b"\x84\xa2id\x01\xa3sid\x01\xa1s\xa1x\xa1z" + b"\x91" * 4000
    ),
    "an array that claims 4 billion": head(b"\x81\xa1s\xdd\xff\xff\xff\xff"),
    "a map that claims 4 billion": head(b"\xdf\xff\xff\xff\xff"),
    "a text that claims 4 GiB": head(b"\x81\xa1s\xdb\xff\xff\xff\xff" + bytes(100)),
    "bytes that claim 4 GiB": head(b"\x81\xa1s\xc6\xff\xff\xff\xff" + bytes(100)),
    "an extension that claims 4 GiB": head(b"\x81\xa1s\xc9\xff\xff\xff\xff\x01"),
    "a timestamp": head(b"\x83\xa2id\x01\xa3sid\x01\xa1s\xd6\xff\x00\x00\x00\x00"),
    "the byte that is never used": head(b"\xc1"),
    "no map": packed([1, 2, 3]),
    "nil": packed(None),
    "a number for a text": packed({**GOOD, "s": 7}),
    "bytes for a text": packed({**GOOD, "s": b"topic.x"}),
    "text that is not UTF-8": head(b"\x83\xa2id\x01\xa3sid\x01\xa1s\xa2\xff\xfe"),
    "a text for a number": packed({**GOOD, "id": "1"}),
    "a fraction for a number": packed({**GOOD, "id": 1.5}),
    "a negative number": packed({**GOOD, "sid": -1}),
    "a number over 63 bits": packed({**GOOD, "sid": 2**64 - 1}),
    "truth for a number": packed({**GOOD, "id": True}),
    "nil for a number": packed({**GOOD, "id": None}),
    "an empty subject": packed({**GOOD, "s": ""}),
    "a subject of 256": packed({**GOOD, "s": "x" * 256}),
    "a key missing": packed({"id": 1, "sid": 1}),
    "more behind the map": packed(GOOD) + b"\x00",
    "a deadline beyond a day": packed({"id": 1, "s": "app.x", "dl": 86_400_001}, REQUEST),
    "a batch of 1025": packed({"s": "topic.x", "n": 1025}, PUBLISH),
    "a batch of none": packed({"s": "topic.x", "n": 0}, PUBLISH),
    "credit over the window": packed({"m": MAX_WINDOW + 1}, CREDIT),
    "credit below zero": packed({"m": -1}, CREDIT),
    "credit of 2 to the 64": packed({"b": 2**64 - 1}, CREDIT),
}


def test_heads_that_are_bombs_are_told_and_cut() -> None:
    """The bound: 8 MiB, however much they claim to hold."""
    with attack(8 * MIB) as (broker, alice):
        for name, bomb in BOMBS.items():
            with mallory(broker) as raw:
                raw.hello()
                raw.socket.send(bomb)
                assert told_and_cut(raw, 400, "bad_frame"), name
        assert undisturbed(broker, alice)


def test_a_head_full_of_unknown_keys_is_read_and_they_are_ignored() -> None:
    with attack(8 * MIB) as (broker, _), mallory(broker) as raw:
        raw.hello()
        unknown = {f"k{n:03}": n for n in range(500)}
        raw.send(SUBSCRIBE, {**unknown, **GOOD})
        assert raw.hear_only(OK) == {"ref": 1}


def test_messages_of_60000_frames_are_dropped_whole_as_they_come() -> None:
    """The bound: 32 MiB for ten at once; libzmq holds each until its last frame has come."""
    with attack(32 * MIB) as (broker, alice), contextlib.ExitStack() as stack:
        offenders = [stack.enter_context(mallory(broker)) for _ in range(10)]
        for raw in offenders:
            raw.hello()
        for raw in offenders:
            raw.socket.send_multipart([b"SB\x01\x02\x80"] * 60_000)
        assert undisturbed(broker, alice)
        for raw in offenders:
            assert raw.is_cut()  # with so much under way, what it is told may not leave in time
        alice.send(REQUEST, {"id": 1, "s": "$SYS.varz", "dl": 5000})
        assert msgpack.unpackb(alice.hear()[2])["refused"] == {"bad_frame": 10}
