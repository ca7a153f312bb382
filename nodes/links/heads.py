"""What protects a data connection: its keys, its first message and the heads of its frames.

The payloads of DATA frames are sealed from end to end, so only the 16-byte heads are sealed once
more between neighbours: nobody on the way can read or change a label, add a frame or play one
again. The keys come from two secrets that the neighbours told each other under CURVE, and hold for
one connection and one direction. Specified in docs/protocol/mesh.md section 1.
"""

from __future__ import annotations

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bus.identity import to_bytes
from nodes import wire
from nodes.wire import WireError

SECRET_BYTES: Final = wire.SECRET_BYTES
ID_BYTES: Final = 16
PREAMBLE: Final = struct.Struct(
    f">4s{ID_BYTES}sI"
)  # magic, id of the link, number of the connection
MAGIC: Final = b"VSM2"
SIZE: Final = struct.Struct(">I")
PREFIX: Final = SIZE.size + wire.HEAD.size + 16  # what stands before each payload
FIRST: Final = PREAMBLE.size + PREFIX  # bytes of the first message of a connection
_SALT: Final = b"viscript mesh data 2"


class Sealer:
    """Seals the heads of one direction of one connection."""

    __slots__ = ("_aead", "_number")

    def __init__(self, aead: AESGCM) -> None:
        self._aead = aead
        self._number = 0

    def seal(self, head: bytes, size: int) -> bytes:
        """What goes before a payload of `size` bytes."""
        length = size.to_bytes(4, "big")
        nonce = self._number.to_bytes(12, "big")
        self._number += 1
        return length + self._aead.encrypt(nonce, head, length)


class Opener:
    """Opens what a Sealer made, in the same order."""

    __slots__ = ("_aead", "_number")

    def __init__(self, aead: AESGCM) -> None:
        self._aead = aead
        self._number = 0

    def open(self, prefix: memoryview | bytes) -> tuple[bytes, int]:
        """The head and the size of the payload that follows; raises WireError."""
        length = prefix[: SIZE.size]
        size = int.from_bytes(length, "big")
        if size > wire.MAX_PAYLOAD:
            raise WireError(f"payload of {size} bytes (at most {wire.MAX_PAYLOAD})")
        nonce = self._number.to_bytes(12, "big")
        self._number += 1
        try:
            return self._aead.decrypt(nonce, prefix[SIZE.size :], length), size
        except InvalidTag:
            raise WireError("a head that was not sealed for this place") from None


class LineKeys:
    """The keys of all data connections of one link.

    `dialler` and `listener` are the keys of the nodes, `theirs` the secrets each of them told.
    """

    def __init__(self, dialler: str, listener: str, theirs: tuple[bytes, bytes]) -> None:
        self._secret = b"".join(theirs)
        self._ends = to_bytes(dialler) + to_bytes(listener)
        self.id = self._derive(b"id", 0, ID_BYTES)

    def from_dialler(self, number: int) -> AESGCM:
        return AESGCM(self._derive(b"from dialler", number, 32))

    def from_listener(self, number: int) -> AESGCM:
        return AESGCM(self._derive(b"from listener", number, 32))

    def _derive(self, purpose: bytes, number: int, size: int) -> bytes:
        info = purpose + self._ends + SIZE.pack(number)
        return HKDF(SHA256(), size, _SALT, info).derive(self._secret)


def first_message(keys: LineKeys, number: int, sealer: Sealer) -> bytes:
    """What the dialler of a data connection says first: which it is, and a proof."""
    proof = sealer.seal(wire.head(wire.FrameType.ALIVE), 0)
    return PREAMBLE.pack(MAGIC, keys.id, number) + proof


def parse_first(data: bytes) -> tuple[bytes, int, bytes]:
    """Id of the link, number of the connection and the proof; raises WireError."""
    magic, link, number = PREAMBLE.unpack_from(data)
    if magic != MAGIC or len(data) != FIRST:
        raise WireError("not the first message of a data connection")
    return link, number, data[PREAMBLE.size :]


def check_proof(opener: Opener, proof: bytes) -> None:
    """Raises WireError when `proof` is not what `first_message` put there."""
    head, size = opener.open(proof)
    if size or wire.parse_head(head)[0] != wire.FrameType.ALIVE:
        raise WireError("a first frame that is no ALIVE")
