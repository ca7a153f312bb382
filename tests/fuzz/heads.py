"""Coverage-guided fuzzing of the frame decoder: python -m tests.fuzz.heads [libFuzzer's options] [CORPUS…].

Whatever the bytes: a command or a documented refusal, never anything else; a command says the same again
when it is encoded. The first byte of the input chooses the direction, and how many bodies a batch has.
"""

import random
import sys

import atheris

with atheris.instrument_imports(include=["bus"]):
    from bus import wire
    from bus.errors import LocalProtocolError, RemoteProtocolError
    from tests.fuzz import mutation

DECODERS = [wire.Decoder(wire.FROM_CLIENT), wire.Decoder(wire.FROM_BROKER)]
REFUSALS = {(400, "bad_frame"), (413, "too_large"), (426, "version")}


def decoded(decoder: wire.Decoder, head: bytes) -> wire.Command | RemoteProtocolError:
    try:
        return decoder.decode(head)
    except RemoteProtocolError as error:
        return error


def check_head(decoder: wire.Decoder, head: bytes) -> None:
    found = decoded(decoder, head)
    if isinstance(found, RemoteProtocolError):
        assert (found.code, found.err) in REFUSALS
        told = wire.encode(wire.Error(found.code, found.err, wire.clip(str(found))))
        assert len(told) <= wire.MAX_HEAD
        return
    assert len(head) <= wire.MAX_HEAD
    try:
        again = wire.encode(found)
    except LocalProtocolError:
        return  # its peer wrote it shorter than we do
    assert decoder.decode(again) == found


def check_batch(body: bytes, n: int) -> None:
    try:
        bodies = wire.split(body, n)
    except RemoteProtocolError:
        return
    assert len(bodies) == n
    assert wire.split(wire.join(bodies), n) == bodies


def fuzz(data: bytes) -> None:
    if data:
        check_head(DECODERS[data[0] & 1], data[1:])
        check_batch(data[1:], data[0])


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    rng = random.Random(seed)
    if rng.random() < 0.5 or not data:
        return mutation.raw(data, max_size)
    return (data[:1] + mutation.head(data[1:], rng))[:max_size]


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz, custom_mutator=mutate)
    atheris.Fuzz()
