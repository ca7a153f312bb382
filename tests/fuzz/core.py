"""Coverage-guided fuzzing of the broker's core: python -m tests.fuzz.core [libFuzzer's options] [CORPUS…].

The input is what three participants say, one after the other. Whatever it is, the core raises nothing,
cuts only who broke the protocol, says only what can be decoded, and goes on to serve a bystander.
"""

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bus"]):
    from bus import wire
    from tests.fuzz import mutation
    from tests.support.dialogue import Peer
    from tests.support.durable import DurableTable

NAMES = ("ann", "bob", "eve")
MAX_SAID = 64


def said(data: bytes) -> list[tuple[int, bytes, bytes | None]]:
    """Who says which head with which body: two bytes of length each, 0xffff for no body."""
    found = []
    while len(data) >= 5 and len(found) < MAX_SAID:
        who, head_size, body_size = data[0], int.from_bytes(data[1:3]), int.from_bytes(data[3:5])
        data = data[5:]
        head, data = data[:head_size], data[head_size:]
        size = 0 if body_size == 0xFFFF else body_size
        body, data = data[:size], data[size:]
        found.append((who, head, None if body_size == 0xFFFF else body))
    return found


def written(what: list[tuple[int, bytes, bytes | None]]) -> bytes:
    """The input that `said` reads as this."""
    return b"".join(
        bytes([who])
        + len(head).to_bytes(2)
        + (0xFFFF if body is None else len(body)).to_bytes(2)
        + head
        + (body or b"")
        for who, head, body in what
    )


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    rng, what = random.Random(seed), said(data)
    if rng.random() < 0.4 or not what:
        return mutation.raw(data, max_size)
    at = rng.randrange(len(what))
    who, head, body = what[at]
    if rng.random() < 0.3:
        who = rng.randrange(256)
    one = (who, mutation.head(head, rng), body)
    what[at : at + (rng.random() < 0.5)] = [one]
    return written(what)[:max_size]


def fuzz(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = DurableTable(
            Path(folder, "topics.db"), ann="operator", bob="app", eve="observer", zoe="app"
        )
        try:
            play(table, said(data))
        finally:
            table.crash()


def play(table: DurableTable, what: list[tuple[int, bytes, bytes | None]]) -> None:
    bystander = table.join("zoe")
    peers: dict[str, Peer] = {}
    for who, head, body in what:
        name = NAMES[who % len(NAMES)]
        if name not in peers or peers[name].cut:
            peers[name] = table.dial(name) if who & 0x40 else table.join(name)
        if who & 0x80:
            table.passes((who & 0x3F) * 0.7)
        peers[name].say_raw(head, body)
        bystander.hears()
    if bystander.in_session:
        assert bystander.say(wire.Ping(7))[-1] == wire.Pong(7, 1)
    table.passes(200.0)
    assert not bystander.in_session  # silent for three heartbeats, as the others


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz, custom_mutator=mutate)
    atheris.Fuzz()
