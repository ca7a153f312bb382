"""Agreeing on keys: the official vectors, who is who, and what a stranger can send."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from bus.identity import to_bytes
from nodes.handshake import NAME, Answer, HandshakeError, Initiator, Offer, Responder
from nodes.sealing import Cipher
from tests.support.memory_mesh import keypair

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "noise-ik.json").read_text(encoding="utf-8")
)
ALICE, BOB, EVE = (keypair(name) for name in ("alice", "bob", "eve"))
BOTH = [Cipher.AES, Cipher.CHACHA]
OFFER = Offer(7, 3, resume=False, ciphers=list(BOTH))


def secret(name: str) -> bytes:
    return to_bytes(keypair(name).secret)


def begun(offer: Offer = OFFER) -> Initiator:
    return Initiator(secret("alice"), to_bytes(BOB.public), offer, bytes(range(32)))


def test_the_library_passes_the_official_vectors_of_this_handshake() -> None:
    vector = VECTORS["cacophony"]
    assert vector["protocol_name"].encode() == NAME
    ends = []
    for role in ("init", "resp"):
        noise = NoiseConnection.from_name(NAME)
        noise.set_prologue(bytes.fromhex(vector[f"{role}_prologue"]))
        noise.set_keypair_from_private_bytes(
            Keypair.STATIC, bytes.fromhex(vector[f"{role}_static"])
        )
        if role == "init":
            noise.set_as_initiator()
            noise.set_keypair_from_public_bytes(
                Keypair.REMOTE_STATIC, bytes.fromhex(vector["init_remote_static"])
            )
        else:
            noise.set_as_responder()
        noise.start_handshake()
        state = noise.noise_protocol
        state.handshake_state.e = state.dh_fn.klass.from_private_bytes(
            bytes.fromhex(vector[f"{role}_ephemeral"])
        )
        ends.append(noise)
    for number, message in enumerate(vector["messages"]):
        sender, receiver = ends[number % 2], ends[1 - number % 2]
        payload = bytes.fromhex(message["payload"])
        write, read = (
            (sender.write_message, receiver.read_message)
            if number < 2
            else (sender.encrypt, receiver.decrypt)
        )
        assert bytes(write(payload)).hex() == message["ciphertext"]
        assert bytes(read(bytes.fromhex(message["ciphertext"]))) == payload
    assert ends[0].get_handshake_hash().hex() == vector["handshake_hash"]


def test_this_projects_own_messages_and_keys_are_what_they_were() -> None:
    ours = VECTORS["ours"]
    initiator = Initiator(
        bytes.fromhex(ours["initiator_secret"]),
        bytes.fromhex(ours["responder_public"]),
        Offer(ours["session"], ours["epoch"], resume=False, ciphers=ours["ciphers"]),
        bytes.fromhex(ours["initiator_ephemeral"]),
    )
    assert initiator.message.hex() == ours["first"]
    responder = Responder(
        bytes.fromhex(ours["responder_secret"]),
        initiator.message,
        bytes.fromhex(ours["responder_ephemeral"]),
    )
    message, keys = responder.answer(Answer(resumed=False, cipher=Cipher.AES))
    assert message.hex() == ours["second"]
    assert (keys.into.hex(), keys.out.hex()) == (ours["initiator_key"], ours["responder_key"])


def test_both_ends_have_the_same_keys_and_know_each_other() -> None:
    initiator = begun()
    responder = Responder(secret("bob"), initiator.message, bytes(32))
    assert responder.peer == to_bytes(ALICE.public)
    assert responder.offer == OFFER
    message, theirs = responder.answer(Answer(resumed=False, cipher=responder.choose(BOTH)))
    mine, answer = initiator.finish(message)
    assert (mine.out, mine.into) == (theirs.into, theirs.out)
    assert mine.cipher is theirs.cipher is Cipher.AES
    assert not answer.resumed


def test_keys_are_not_shown() -> None:
    initiator = begun()
    responder = Responder(secret("bob"), initiator.message, bytes(32))
    _, keys = responder.answer(Answer(resumed=False, cipher=Cipher.AES))
    assert "out" not in repr(keys)
    assert keys.out.hex() not in repr(keys)


@pytest.mark.parametrize(
    ("mine", "theirs", "chosen"),
    [
        (BOTH, BOTH, Cipher.AES),
        (BOTH[::-1], BOTH, Cipher.CHACHA),
        (BOTH, BOTH[::-1], Cipher.CHACHA),
        ([Cipher.AES], BOTH[::-1], Cipher.AES),
    ],
)
def test_aes_is_used_where_both_have_it_in_their_cpu(
    mine: list[Cipher], theirs: list[Cipher], chosen: Cipher
) -> None:
    offer = Offer(1, 0, resume=False, ciphers=list(mine))
    responder = Responder(secret("bob"), begun(offer).message, bytes(32))
    assert responder.choose(theirs) is chosen


def test_a_cipher_that_was_not_offered_is_refused() -> None:
    initiator = begun(Offer(1, 0, resume=False, ciphers=[Cipher.CHACHA]))
    responder = Responder(secret("bob"), initiator.message, bytes(32))
    message, _ = responder.answer(Answer(resumed=False, cipher=Cipher.AES))
    with pytest.raises(HandshakeError, match="not offered"):
        initiator.finish(message)
    with pytest.raises(HandshakeError, match="no cipher of ours"):
        Responder(
            secret("bob"), begun(Offer(1, 0, resume=False, ciphers=["rot13"])).message, bytes(32)
        ).choose(BOTH)


def test_a_forged_answer_does_not_spoil_the_true_one() -> None:
    initiator = begun()
    responder = Responder(secret("bob"), initiator.message, bytes(32))
    message, _ = responder.answer(Answer(resumed=False, cipher=Cipher.AES))
    stranger, _ = Responder(secret("bob"), initiator.message, bytes([1] * 32)).answer(
        Answer(resumed=False, cipher=Cipher.AES)
    )
    for at in (0, 40, -1):
        forged = bytearray(message)
        forged[at] ^= 1
        with pytest.raises(HandshakeError):
            initiator.finish(bytes(forged))
    assert initiator.finish(message)[0] != initiator.finish(stranger)[0]


def test_a_message_for_somebody_else_does_not_open() -> None:
    with pytest.raises(HandshakeError):
        Responder(secret("eve"), begun().message, bytes(32))


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_public_key_of_small_order_is_refused(point: bytes) -> None:
    with pytest.raises(HandshakeError):
        Responder(secret("bob"), point + begun().message[32:], bytes(32))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=1100))
def test_random_bytes_are_refused(message: bytes) -> None:
    with pytest.raises(HandshakeError):
        Responder(secret("bob"), message, bytes(32))
    with pytest.raises(HandshakeError):
        begun().finish(message)
