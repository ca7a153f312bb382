"""How two end nodes agree on the keys of a session: Noise_IK_25519_AESGCM_SHA256.

The static keys are the nodes' CURVE keys, which are X25519 keys; the one who begins knows the
other's, because it is the address. The first message can be replayed by whoever saw it, so its
receiver must change nothing until a frame under the new keys has come (nodes.session). What the two
say to each other (`Offer`, `Answer`) is sealed in these messages, so a cipher cannot be talked down.

The handshake itself is the package `noiseprotocol`, the frames are not: see nodes.sealing.
Specified in docs/protocol/mesh.md, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseInvalidMessage, NoiseValueError

from nodes.sealing import CIPHERS, Cipher

NAME: Final = b"Noise_IK_25519_AESGCM_SHA256"
PROLOGUE: Final = b"viscript mesh session 2"
KEY_BYTES: Final = 32
MAX_MESSAGE: Final = 1024  # bytes of a handshake message
_LEAST: Final = 48  # bytes: an ephemeral key and a tag

Name = Annotated[str, msgspec.Meta(max_length=32)]
Names = Annotated[list[Name], msgspec.Meta(max_length=16)]
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # of a session
Epoch = Annotated[int, msgspec.Meta(ge=0, le=255)]


class HandshakeError(Exception):
    """A handshake message that is no answer to ours, or not from the peer; it is dropped."""


class Offer(msgspec.Struct, frozen=True):
    """What the one who begins says. `resume`: new keys for the session `session`, which goes on."""

    session: Number
    epoch: Epoch
    resume: bool
    ciphers: Names
    capabilities: Names = []


class Answer(msgspec.Struct, frozen=True):
    """What the other says. Without `resumed` a session begins whose counters start again."""

    resumed: bool
    cipher: Name
    capabilities: Names = []


@dataclass(frozen=True, slots=True)
class Keys:
    """Of one epoch; `out` seals what this end sends, `into` opens what comes."""

    cipher: Cipher
    out: bytes = field(repr=False)
    into: bytes = field(repr=False)


_Words = TypeVar("_Words", Offer, Answer)


class Initiator:
    """The end that begins. `message` may be sent again, the same bytes each time.

    `secret` and `ephemeral` are raw X25519 keys; `ephemeral` must be fresh and random.
    """

    def __init__(self, secret: bytes, peer: bytes, offer: Offer, ephemeral: bytes) -> None:
        self.offer = offer
        self._secret, self._peer, self._ephemeral = secret, peer, ephemeral
        self.message = self._begin()[1]

    def finish(self, message: bytes) -> tuple[Keys, Answer]:
        """Keys and the peer's words; raises HandshakeError, after which it may be called again."""
        _check(message)
        # A message that does not open leaves the library's state broken, and anybody on the way
        # can send one: so each is tried on a state of its own.
        noise, _ = self._begin()
        answer = _decode(_read(noise, message), Answer)
        if answer.cipher not in self.offer.ciphers or answer.cipher not in CIPHERS:
            raise HandshakeError(f"the peer chose the cipher {answer.cipher!r}: not offered")
        return _keys(noise, Cipher(answer.cipher)), answer

    def _begin(self) -> tuple[NoiseConnection, bytes]:
        noise = _connection(self._secret, self._ephemeral, peer=self._peer)
        return noise, bytes(noise.write_message(msgspec.msgpack.encode(self.offer)))


class Responder:
    """The end that answers. Raises HandshakeError when the message is not for this node."""

    def __init__(self, secret: bytes, message: bytes, ephemeral: bytes) -> None:
        _check(message)
        self._noise = _connection(secret, ephemeral)
        payload = _read(self._noise, message)
        self.offer = _decode(payload, Offer)
        # The key that the first message proves; never one that it claims.
        self.peer: bytes = self._noise.noise_protocol.handshake_state.rs.public_bytes

    def choose(self, preferred: list[Cipher]) -> Cipher:
        """The cipher for both ends, of those offered and preferred; raises HandshakeError.

        Each side names its fastest first. One without AES in its CPU is 20 times slower at it,
        one with it hardly slower at ChaCha20: so where they differ, ChaCha20 it is.
        """
        offered = self.offer.ciphers
        if offered[:1] == preferred[:1]:
            return preferred[0]
        common = [cipher for cipher in preferred if cipher in offered]
        if not common:
            raise HandshakeError(f"the peer offers no cipher of ours: {offered}")
        return Cipher.CHACHA if Cipher.CHACHA in common else common[0]

    def answer(self, answer: Answer) -> tuple[bytes, Keys]:
        """The message to send, and the keys. Once."""
        message = bytes(self._noise.write_message(msgspec.msgpack.encode(answer)))
        return message, _keys(self._noise, Cipher(answer.cipher))


def _connection(secret: bytes, ephemeral: bytes, peer: bytes | None = None) -> NoiseConnection:
    noise = NoiseConnection.from_name(NAME)
    noise.set_prologue(PROLOGUE)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, secret)
    if peer is None:
        noise.set_as_responder()
    else:
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, peer)
        noise.set_as_initiator()
    noise.start_handshake()
    protocol = noise.noise_protocol
    protocol.handshake_state.e = protocol.dh_fn.klass.from_private_bytes(ephemeral)
    return noise


def _check(message: bytes) -> None:
    if not _LEAST <= len(message) <= MAX_MESSAGE:
        raise HandshakeError(f"handshake message of {len(message)} bytes")


def _read(noise: NoiseConnection, message: bytes) -> bytes:
    try:
        return bytes(noise.read_message(message))
    except (InvalidTag, NoiseInvalidMessage, NoiseValueError, ValueError) as error:
        # ValueError: a public key of small order, refused by the library below.
        raise HandshakeError(f"handshake message does not open ({type(error).__name__})") from None


def _decode(payload: bytes, kind: type[_Words]) -> _Words:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HandshakeError(f"handshake payload is malformed: {error}") from None


def _keys(noise: NoiseConnection, cipher: Cipher) -> Keys:
    protocol = noise.noise_protocol
    return Keys(cipher, protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k)
