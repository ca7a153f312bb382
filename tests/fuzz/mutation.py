"""Mutations that keep a head's form: the fields of one command, with other values."""

import random

import atheris
import msgpack
import msgspec

from bus import wire

COMMANDS = (*wire.FROM_CLIENT, *wire.FROM_BROKER)
WORDS = [
    "app.x",
    "app.>",
    "app.*",
    "$SYS.sessions",
    "topic.y",
    "g",
    "drop_new",
    "ack",
    "0" * 40,
    "",
    "a..b",
    "é",
]
NUMBERS = [0, 1, 2, 3, 16, 255, 256, 1024, 1025, 1 << 15 | 1, 1 << 20, 2**40, 2**63 - 1, 2**63, -1]


def value(rng: random.Random) -> object:
    kinds = [
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(WORDS),
        lambda: "x" * rng.choice([1, 64, 65, 255, 256, 1025]),
        lambda: rng.random() < 0.5,
        lambda: rng.choice([None, 1.5, b"bytes"]),
        lambda: [rng.choice([*NUMBERS, *WORDS]) for _ in range(rng.choice([0, 1, 3, 300]))],
        lambda: {rng.choice("mbsx"): rng.choice(NUMBERS)},
    ]
    return rng.choice(kinds)()


def head(old: bytes, rng: random.Random) -> bytes:
    """`old` with another value of one field, or the first fields of another command."""
    kind = next((c for c in COMMANDS if old[3:4] == bytes([c.code])), rng.choice(COMMANDS))
    if rng.random() < 0.1:
        kind = rng.choice(COMMANDS)
    try:
        fields = msgpack.unpackb(old[4:])
    except (ValueError, msgpack.UnpackException):
        fields = {}
    if not isinstance(fields, dict) or len(fields) > 32:
        fields = {}
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    fields[rng.choice(names)] = value(rng)
    try:
        return b"SB\x01" + bytes([kind.code]) + msgpack.packb(fields)
    except (ValueError, OverflowError):
        return old


def raw(data: bytes, max_size: int) -> bytes:
    return bytes(atheris.Mutate(data, max_size))
